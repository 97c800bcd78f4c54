"""What a notebook's cells install, download or load from the network is found in every usual form, and nothing else is."""

from __future__ import annotations

import pytest

from arc_submit.kaggle.cell_commands import split_commands
from arc_submit.kaggle.given_values import given_values
from arc_submit.kaggle.network_check import check_network

INSTALLS = [
    "get_ipython().magic('%pip install x')",
    "!pip install x",
    "%pip install x",
    "pip = 1\n!cd /tmp && pip install -q x",
    "%%bash\nuv pip install unsloth",
    "%%bash\ncd x\npip install y",
    "%%sh\nset -e\n(cd x; pip3 install y)",
    "!python -m pip install x",
    "!{sys.executable} -m pip install x",
    "import subprocess, sys\nsubprocess.check_call([sys.executable, '-m', 'pip', 'install', 'x'])",
    "import subprocess\nsubprocess.run('pip install x', shell=True)",
    "subprocess.run('pip install x'.split())",
    "import shlex\nsubprocess.run(shlex.split('pip install x'))",
    "import os\nos.system('cd a; pip install x')",
    "os.popen(f'pip install {name}')",
    "%conda install -y x",
    "!conda install x",
    "!mamba install x",
    "!apt-get update && apt-get install -y git",
    "%system pip install x",
    "%sx pip install x",
    "x = !pip install y",
    "!!pip install y",
    "%%script bash\npip install y",
    "%%capture\n!pip install y",
    "%%time\n%pip install z",
    "cmd = 'pip install x'\nos.system(cmd)",
    "cmd = [sys.executable, '-m', 'pip', 'install']\nsubprocess.run(cmd + ['x'])",
    "import pip\npip.main(['install', 'x'])",
    "from pip._internal.cli.main import main\nmain(['install','x'])",
    "!bash -c 'pip install x'",
    "subprocess.run(['bash','-c','pip install x'])",
    "subprocess.run(['bash','-lc','cd a && uv pip install x'])",
    "if 1:\n    !pip install \\\n       x",
    "!sudo -E pip install x",
    "!PIP_QUIET=1 pip install x",
    "!yes | pip install x",
    "!if true; then pip install x; fi",
    "%%bash\nfor p in a b; do\n  pip install $p\ndone",
    "!/usr/bin/pip3.12 install x",
    "!uv add x",
    "!uv pip install --system x",
    "get_ipython().system('pip install x')",
    "get_ipython().run_line_magic('pip','install x')",
    "await asyncio.create_subprocess_shell('pip install x')",
    "await asyncio.create_subprocess_exec('pip','install','x')",
    "!pip install git+https://github.com/a/b",
    "!pip install -r requirements.txt",
    "!timeout 60 pip install x",
    "!pip download x",
    "!pip install x --find-links /kaggle/input/w",
    "%%writefile setup.sh\npip install x",
    "!pip --quiet install x",
    "!pip install ./x.whl",
    "def f():\n    os.system('pip install x')\n",
    "!pip install x || true",
    "!echo a; pip install b # c",
    "!nohup pip install x &",
    "!curl -s http://x | sh; pip install x",
    "subprocess.run(args=['pip','install','x'])",
    "!xargs -n 1 pip install < reqs.txt",
    '!eval "pip install x"',
    "!python3 -mpip install x",
    "!python -m ensurepip",
    "%uv pip install x",
    "!poetry install",
    "os.execvp('pip', ['pip','install','x'])",
]
DOWNLOADS = [
    "trainer = SFTTrainer(model='a/b')",
    "!wget http://a/b",
    "!curl -O https://x",
    "!git clone https://github.com/a/b",
    "%%bash\ncd x && git clone git@a:b",
    "!git lfs pull",
    "!hf download a/b",
    "!huggingface-cli download Qwen/Qwen3-4B",
    "!kaggle datasets download a/b",
    "from huggingface_hub import snapshot_download\nsnapshot_download(repo_id='a/b')",
    "hf_hub_download('a/b','c')",
    "requests.get('x')",
    "import urllib.request as u\nu.urlretrieve('x')",
    "import kagglehub\nkagglehub.model_download('a/b')",
    "m = AutoModel.from_pretrained('Qwen/Qwen3')",
    "m = AutoModel.from_pretrained(pretrained_model_name_or_path='Qwen/Qwen3')",
    'FastLanguageModel.from_pretrained(model_name = "unsloth/Qwen3-4B")',
    "pipeline('text-generation', model='a/b')",
    "vllm.LLM('org/name')",
    "LLM(model='org/name', tensor_parallel_size=4)",
    "n = 'org/name'\nLLM(n)",
    "PeftModel.from_pretrained(m, 'a/b')",
    "!vllm serve Qwen/Qwen3-4B",
    "!python -m vllm.entrypoints.openai.api_server --model Qwen/Q",
    "nltk.download('x')",
    "wandb.init(project='x')",
    "from datasets import load_dataset\nload_dataset('a/b')",
    "subprocess.run(['wget','x'])",
    "os.system('git clone https://x')",
    "torch.hub.load('a/b','c')",
    "AutoTokenizer.from_pretrained('meta-llama/Llama-3.2-1B', use_fast=True)",
    "m = f'Qwen/{size}'\nAutoModel.from_pretrained(m)",
    "SentenceTransformer('a/b')",
    "!rm -rf x && git clone https://a",
    "Repo.clone_from('a','b')",
    "urllib.request.urlopen('x')",
    "!aria2c x",
    "EngineArgs(model='a/b')",
]
OFFLINE = [
    "# pip install vllm, at home",
    "raise SystemExit('pip install vllm first')",
    "import subprocess\nsubprocess.run(['pip', 'install',\n  '--no-index', 'vllm'])",
    "model = x.from_pretrained(folder)",
    "!pip list",
    "!pip --version",
    "%%bash\n# pip install x\nls",
    "print('pip install x')",
    "!echo pip install x",
    "m = AutoModel.from_pretrained('/kaggle/input/a/b')",
    "from_pretrained('./a/b')",
    "!pip install --no-index --find-links /kaggle/input/w x",
    "%pip install --no-index x",
    "!uv pip install --offline x",
    "!pip install --no-deps /kaggle/input/a/x.whl",
    "!curl http://localhost:8000/v1",
    "requests",
    "open('a/b')",
    "run(config)",
    "p = folder / 'a/b'\nLLM(p)",
    "f'{root}/models'\nLLM(f'{root}/models')",
    "%matplotlib inline\nx=1",
    "!git status",
    "!git log",
    "%%html\npip install",
    "wandb.init(mode='offline')",
    "x = 'git clone'",
    "subprocess.run([sys.executable,'-m','arc_submit.cli','run'])",
    "!pip uninstall -y x",
    "import pip",
    "%load_ext autoreload",
    "!python train.py --model /a/b",
    "%%bash\nexport PIP_NO_INDEX=1\necho",
    "!git commit -m 'pip install'",
    "!python setup.py install",
    "!nvidia-smi; df -h; ls /kaggle/input",
    "os.system('ls')",
    "!uv run x.py",
    "cmd = ['ls']\nsubprocess.run(cmd)",
    "%%javascript\nx",
    "!pip check",
    "!grep -r 'pip install' .",
    "!pip show x | head",
    "%run x.py",
    "!pip install --no-index -r r.txt --find-links=/kaggle/input/w",
]
FORMS = [*((source, "error") for source in INSTALLS), *((source, "warning") for source in DOWNLOADS), *((source, "") for source in OFFLINE)]


@pytest.mark.parametrize(("source", "severity"), FORMS)
def test_every_form_is_told_apart(source: str, severity: str) -> None:
    found = list(check_network("n.ipynb", [(3, source)]))
    assert {finding.severity for finding in found} == ({severity} if severity else set())
    assert all(finding.place == "cell 3" for finding in found)


def test_a_text_that_an_earlier_cell_sets_is_known() -> None:
    cells = [(0, "name = 'Qwen/Qwen3-4B'"), (1, "install = ['pip', 'install']"), (2, "LLM(name)"), (3, "subprocess.run([*install, 'x'])")]
    cells.append((4, "subprocess.run(install + ['x'])"))
    assert [(finding.place, finding.severity) for finding in check_network("n", cells)] == [("cell 2", "warning"), ("cell 4", "error")]


def test_a_shell_text_is_split_into_its_commands() -> None:
    text = "cd a && FOO=1 pip install b; (ls | head) # pip\nif true; then timeout 9 bash -c 'wget c'; fi"
    assert list(split_commands(text)) == [["cd", "a"], ["pip", "install", "b", "FOO=1"], ["ls"], ["head"], ["true"], ["wget", "c"]]


def test_the_values_of_a_name_are_found() -> None:
    cells = ["a = 3\n!ls\nb, a = 1, 'x'", "a: int = 2 * (3 + 4)\nf(a=7)\na = True\na = g({'a': 9})", "a = (", "a = 5 if b else 6"]
    assert given_values(cells, "a") == [3, "x", 14, 7, 9, 5, 6]
