# The trainer, with vLLM colocated or spoken to as a server:
#   docker build -f docker/train.Dockerfile -t srl-swe/train .
#   docker run --rm --gpus all --ipc host -v "$PWD/runs:/training/runs" srl-swe/train \
#       train srl --config srl-small --data runs/steps --output runs/srl
# The devel image, as Triton and DeepSpeed compile kernels when they first need them.
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu24.04
FROM ${CUDA_IMAGE}

RUN apt-get update \
 && apt-get install -y --no-install-recommends git python3 python3-dev python3-venv tini \
 && rm -rf /var/lib/apt/lists/*

ENV LANG=C.UTF-8 PATH=/opt/venv/bin:$PATH HF_HUB_DISABLE_TELEMETRY=1 PYTHONUNBUFFERED=1
ARG EXTRAS=train,vllm
COPY docker/train-constraints.txt /src/docker/
RUN python3 -m venv /opt/venv \
 && pip install --no-cache-dir --constraint /src/docker/train-constraints.txt \
        accelerate datasets peft swebench torch trl

COPY . /src
RUN pip install --no-cache-dir --constraint /src/docker/train-constraints.txt "/src[${EXTRAS}]"

# Not root: give mounted folders to this user, or run with --user "$(id -u)".
RUN useradd --create-home --uid 10001 trainer && mkdir /training && chown trainer /training
USER trainer
ENV HOME=/home/trainer
WORKDIR /training
ENTRYPOINT ["/usr/bin/tini", "--", "srl-swe"]
CMD ["train", "--list"]
