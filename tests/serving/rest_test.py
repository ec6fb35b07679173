"""REST's JSON as TensorFlow Serving documents it."""

import json

import numpy as np
import pytest

from tf_finetune.serving import rest


class TestRequest:
    def test_row_of_one_input_has_no_names(self):
        assert json.loads(rest.request_body({"text": ["a", "b"]}, row=True)) == {"instances": ["a", "b"]}

    def test_another_signature_is_named(self):
        body = rest.request_body({"text": ["a", "b"]}, signature="tokens", row=True)
        assert json.loads(body) == {"signature_name": "tokens", "instances": ["a", "b"]}

    def test_row_of_several_inputs(self):
        body = rest.request_body({"text": ["a"], "text_pair": ["b"]}, signature="s", row=True)
        assert json.loads(body)["instances"] == [{"text": "a", "text_pair": "b"}]

    def test_columnar(self):
        body = rest.request_body({"text": ["a"], "text_pair": ["b"]}, signature="s", row=False)
        assert json.loads(body)["inputs"] == {"text": ["a"], "text_pair": ["b"]}
        assert json.loads(rest.request_body({"text": ["a"]}, signature="s", row=False))["inputs"] == ["a"]

    @pytest.mark.parametrize("row", [True, False])
    @pytest.mark.parametrize(
        "inputs",
        [{"text": ["a\x00", 'b"', "電影"]}, {"text": ["a"], "text_pair": ["b"]}, {"input_ids": [[1, 2], [3, 4]]}],
    )
    def test_comes_in_as_it_went_out(self, inputs, row):
        body = rest.request_body(inputs, signature="serving_default", row=row)
        assert rest.inputs_of(body, list(inputs)) == ("serving_default", inputs)

    def test_bytes_that_are_no_text(self):
        assert rest.inputs_of('{"instances": [{"b64": "/w=="}]}', ["text"])[1] == {"text": [b"\xff"]}

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("{}", "either 'instances' or 'inputs'"),
            ('{"instances": ["a"], "inputs": ["a"]}', "either 'instances' or 'inputs'"),
            ('{"instances": []}', "an entry an example"),
            ('{"instances": ["a"]}', "expected an object with text, text_pair"),
            ('{"inputs": {"text": ["a"]}}', "expected the inputs text, text_pair, got text"),
            ('{"instances": [{"text": "a", "text_pair": "b"}, {"text": "a"}]}', "all instances have the same inputs"),
        ],
    )
    def test_what_the_server_would_refuse(self, body, message):
        with pytest.raises(ValueError, match=message):
            rest.inputs_of(body, ["text", "text_pair"])


class TestResponse:
    def test_row(self):
        body = rest.response_body({"label": ["good"], "score": np.array([0.5], np.float32)}, row=True)
        assert json.loads(body) == {"predictions": [{"label": "good", "score": 0.5}]}
        assert json.loads(rest.response_body({"score": np.array([0.5])}, row=True)) == {"predictions": [0.5]}

    def test_columnar(self):
        body = rest.response_body({"label": ["good"], "score": np.array([0.5], np.float32)}, row=False)
        assert json.loads(body) == {"outputs": {"label": ["good"], "score": [0.5]}}

    def test_rows_need_one_batch(self):
        with pytest.raises(ValueError, match="the batches differ: label 1, score 2"):
            rest.response_body({"label": ["good"], "score": np.zeros(2)}, row=True)
