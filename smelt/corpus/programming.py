"""Which programming language a file is in, by its name, and which files were made by a program or by others."""

import re
from pathlib import PurePath

_EXTENSIONS = {
    "Ada": "adb ads",
    "Assembly": "asm s",
    "Bash": "sh bash zsh",
    "C": "c h",
    "C#": "cs",
    "C++": "cc cpp cxx c++ hh hpp hxx h++ inl",
    "CMake": "cmake",
    "CSS": "css",
    "CUDA": "cu cuh",
    "Clojure": "clj cljs cljc",
    "CoffeeScript": "coffee",
    "Common Lisp": "lisp lsp cl",
    "Crystal": "cr",
    "D": "d",
    "Dart": "dart",
    "Dockerfile": "dockerfile",
    "Elixir": "ex exs",
    "Elm": "elm",
    "Emacs Lisp": "el",
    "Erlang": "erl hrl",
    "F#": "fs fsi fsx",
    "Fortran": "f f77 f90 f95 f03 f08 for",
    "GLSL": "glsl vert frag geom",
    "Go": "go",
    "GraphQL": "graphql gql",
    "Groovy": "groovy gradle",
    "HTML": "html htm",
    "Haskell": "hs lhs",
    "Java": "java",
    "JavaScript": "js jsx mjs cjs",
    "Julia": "jl",
    "Kotlin": "kt kts",
    "LaTeX": "tex sty cls",
    "Lean": "lean",
    "Less": "less",
    "Lua": "lua",
    "MATLAB": "m",
    "Makefile": "mk mak",
    "Markdown": "md markdown",
    "Nim": "nim",
    "Nix": "nix",
    "OCaml": "ml mli",
    "Objective-C++": "mm",
    "PHP": "php",
    "Pascal": "pas pp dpr",
    "Perl": "pl pm",
    "PowerShell": "ps1 psm1 psd1",
    "Prolog": "pro",
    "Protocol Buffer": "proto",
    "Python": "py pyi pyx",
    "R": "r",
    "Racket": "rkt",
    "Ruby": "rb rake gemspec",
    "Rust": "rs",
    "SCSS": "scss sass",
    "SQL": "sql",
    "Scala": "scala sc sbt",
    "Scheme": "scm ss",
    "Shader": "hlsl metal wgsl",
    "Smalltalk": "st",
    "Solidity": "sol",
    "Svelte": "svelte",
    "Swift": "swift",
    "SystemVerilog": "sv svh",
    "TOML": "toml",
    "Tcl": "tcl",
    "TypeScript": "ts tsx mts cts",
    "VHDL": "vhd vhdl",
    "Verilog": "v vh",
    "Visual Basic": "vb vbs bas",
    "Vue": "vue",
    "XSLT": "xsl xslt",
    "YAML": "yaml yml",
    "Zig": "zig",
    "reStructuredText": "rst",
}
_BY_EXTENSION = {extension: name for name, extensions in _EXTENSIONS.items() for extension in extensions.split()}
_BY_NAME = {
    "cmakelists.txt": "CMake",
    "containerfile": "Dockerfile",
    "dockerfile": "Dockerfile",
    "gemfile": "Ruby",
    "gnumakefile": "Makefile",
    "jenkinsfile": "Groovy",
    "makefile": "Makefile",
    "rakefile": "Ruby",
}
LANGUAGES = frozenset(_EXTENSIONS)

_ELSEWHERE = frozenset(
    ("node_modules", "bower_components", "vendor", "third_party", "third-party", "thirdparty", "external", "eggs")
) | {"site-packages", "dist-packages", "__pycache__", "venv", "env", "virtualenv", "Pods", "Carthage"}
_MADE_NAMES = re.compile(
    r".*\.min\.(js|css|mjs)|.*\.bundle\.(js|mjs)|.*[._]pb2?(_grpc)?\.(py|pyi|go|cc|h|rb|js|ts|dart)|.*\.pb\.(h|cc|go)"
    r"|.*\.g\.(dart|cs)|.*\.designer\.(cs|vb)|.*\.d\.ts\.map|.*\.generated\.[a-z]+|package-lock\.json|pnpm-lock\.yaml"
    r"|cargo\.lock|poetry\.lock|yarn\.lock|moc_.*\.cpp|ui_.*\.h|qrc_.*\.cpp",
    re.IGNORECASE,
)
_MADE_MARKS = re.compile(
    r"@generated\b|\b(?:auto[- ]?|automatically |machine[- ])generated\b|\bgenerated (?:by|from|with)\b[^\n]{0,200}"
    r"\bdo not (?:edit|modify)\b|\bcode generated\b[^\n]{0,200}\bdo not edit\b"
    r"|\bthis file (?:is|was) (?:auto[- ]?|automatically )?generated\b|\bdo not edit (?:this file|by hand|manually)\b",
    re.IGNORECASE,
)
_MARKED_WITHIN = 1000  # characters from the beginning


def language(file: PurePath) -> str | None:
    """The language of a file by its name, None for one that is no source code."""
    return _BY_NAME.get(file.name.lower()) or _BY_EXTENSION.get(file.suffix[1:].lower())


def from_elsewhere(file: PurePath) -> bool:
    """Whether a path inside a folder of repositories lies in a folder for other people's code."""
    return not _ELSEWHERE.isdisjoint(file.parts[:-1])


def made_by_program(file: PurePath, text: str) -> bool:
    """Whether the name or the beginning of a file says that a program wrote it."""
    return bool(_MADE_NAMES.fullmatch(file.name) or _MADE_MARKS.search(text, 0, _MARKED_WITHIN))
