"""Every family by its `model_type`, the first that can express a model being the one it is exported to."""

from smelt.model.families.deepseek_v3 import DEEPSEEK_V3
from smelt.model.families.falcon_h1 import FALCON_H1
from smelt.model.families.family import Family
from smelt.model.families.gemma3 import GEMMA3_TEXT
from smelt.model.families.gpt_oss import GPT_OSS
from smelt.model.families.granitemoehybrid import GRANITEMOEHYBRID
from smelt.model.families.llama import LLAMA
from smelt.model.families.mistral import MISTRAL
from smelt.model.families.mixtral import MIXTRAL
from smelt.model.families.nemotron_h import NEMOTRON_H
from smelt.model.families.olmo2 import OLMO2
from smelt.model.families.qwen2 import QWEN2
from smelt.model.families.qwen3 import QWEN3
from smelt.model.families.qwen3_moe import QWEN3_MOE
from smelt.model.families.qwen3_next import QWEN3_NEXT
from smelt.model.families.smollm3 import SMOLLM3

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "smollm3": SMOLLM3,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "olmo2": OLMO2,
    "gemma3_text": GEMMA3_TEXT,
    "deepseek_v3": DEEPSEEK_V3,
    "gpt_oss": GPT_OSS,
    "mixtral": MIXTRAL,
    "qwen3_moe": QWEN3_MOE,
    "granitemoehybrid": GRANITEMOEHYBRID,
    "nemotron_h": NEMOTRON_H,
    "falcon_h1": FALCON_H1,
    "qwen3_next": QWEN3_NEXT,
}
