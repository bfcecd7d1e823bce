"""What contenders are called in tables and charts, in their order there."""

TITLES = {
    "ours": "llavachat",
    "tutorial": "generate() under a lock",
    "transformers-serve": "transformers serve",
    "vllm": "vLLM",
    "openvino": "OpenVINO GenAI",
    "openvino-batching": "OpenVINO GenAI, continuous batching",
    "llama-cpp": "llama.cpp server",
    "engine": "llavachat's engine, in process",
    "bare-loop": "bare forward loop",
    "bandwidth": "reading memory",
}
