# daskml-scale and what its clusters need, for Kubernetes, Slurm containers, or a machine without Python:
#   docker build -t daskml-scale . && docker run --rm -v "$PWD:/data" daskml-scale run /data/trips.yaml
# Other Pythons: --build-arg PYTHON=3.11. Other extras: --build-arg EXTRAS=s3,xgboost,onnx
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG EXTRAS=s3,netcdf,search,ssh,xgboost
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/constraints.txt
RUN pip install --no-cache-dir -c /wheels/constraints.txt "$(ls /wheels/*.whl)[${EXTRAS}]" && rm -r /wheels
# Nobody in particular: restricted pod security asks for it. Results go where a volume is mounted.
RUN useradd --create-home --uid 1000 daskml
USER 1000:1000
WORKDIR /data
ENV DASKML_SCALE_HOME=/home/daskml/registry
ENTRYPOINT ["daskml-scale"]
CMD ["--help"]
