"""The command's entry: puts the verbs together and turns a user's mistake into one line and exit code 2."""

import sys

import typer

from smelt.cli import corpus, data, evals, launch, model, posttrain, recipe, report, run, tokenizer, train
from smelt.errors import Elsewhere, InputError, Stopped

app = typer.Typer(
    help="Train language models end to end. Start with: [bold]smelt run recipes/demo.yaml[/bold]",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.add_typer(recipe.app, name="recipe")
app.add_typer(corpus.app, name="corpus")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.add_typer(launch.app, name="launch")
app.command("eval")(evals.evaluate)
app.command("posttrain")(posttrain.posttrain)
app.command("chat")(posttrain.chat)
app.command("import")(model.import_)
app.command("export")(model.export)
app.command("report")(report.report)


def main() -> None:
    """Run the command line; never a traceback for a user's mistake."""
    try:
        app()
    except InputError as error:
        if not isinstance(error, Elsewhere):
            sys.stderr.write(f"smelt: {error}\n")
        sys.exit(2)
    except Stopped as stopped:
        sys.stderr.write(f"smelt: {stopped}\n")
        sys.exit(130)
    except KeyboardInterrupt:
        sys.stderr.write("smelt: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
