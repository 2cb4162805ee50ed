"""llama.cpp's own HTTP server on the GGUF file of the installed SmolLM2 wheel, in a process of its own.

``python llama_cpp_server.py MODEL.gguf`` prints its address once it answers, and serves until its stdin is closed.
"""

import sys


def serve(model: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx, params.n_parallel = 4096, 2
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    print(f"address {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])
