"""Every version of a model that is served alone, by tritonclient over HTTP and gRPC; run by test_versions."""

import json
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

http_url, grpc_url, *names = sys.argv[1:]
answers = {}
for title, module, url in (("http", over_http, http_url), ("grpc", over_grpc, grpc_url)):
    client = module.InferenceServerClient(url)
    for version in ("1", "2", "3", ""):
        assert client.is_model_ready("late_parcel", version)
        inputs = [module.InferInput(name, [1], "FP64") for name in names]
        for one in inputs:
            one.set_data_from_numpy(np.array([1.0]))
        answer = client.infer("late_parcel", inputs, model_version=version)
        answers.setdefault(title, {})[version] = float(answer.as_numpy("score")[0])
    assert not client.is_model_ready("late_parcel", "4")
print(json.dumps(answers))
