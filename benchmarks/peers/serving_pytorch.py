"""PyTorch's class in float32 with Hugging Face's tokenizer, padded to the longest; eager or compiled."""

import serving_protocol
import torch
import transformers


def load(job):
    torch.set_num_threads(job["threads"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["checkpoint"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(job["checkpoint"]).eval()
    run = torch.compile(model, dynamic=True) if job["compiled"] else model

    @torch.inference_mode()
    def answer(texts):
        length = serving_protocol.MOST_TOKENS
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        return torch.softmax(run(**inputs).logits, dim=-1).numpy()

    return answer


serving_protocol.serve(load)
