"""Transformers of every kind as the library `transformers` has them, tiny and random: nothing is loaded."""

import numpy as np
import torch
import transformers as tr
from case import Case, numbers, rows
from torch import nn
from torch_modules import spread
from transformers.cache_utils import DynamicCache

TEXT = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=32)
IDS = {"ids": numbers(2, 6, below=60)}
MASKED = IDS | {"mask": np.array([[1] * 6, [1] * 4 + [0] * 2], np.int64)}
AXES = {"ids": {0: "batch", 1: "rows"}, "mask": {0: "batch", 1: "rows"}}
PICTURE = {"x": rows(2, 3, 32, 32)}


class First(nn.Module):
    """A model's first output."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, x):
        return self.model(**{self.names[0]: x}, return_dict=False)[0]


class Second(First):
    """The same of two inputs."""

    def forward(self, x, y):
        return self.model(**{self.names[0]: x, self.names[1]: y}, return_dict=False)[0]


class Cached(nn.Module):
    """A decoder that is given its past, flat, and gives the present: of its own tokens, where it attends to an encoder's too."""

    def __init__(self, model, parts=2):
        super().__init__()
        self.model, self.parts = model, parts

    def forward(self, first, second, k0, v0, k1, v1):
        past = (k0, v0, k1, v1)
        if not torch.jit.is_tracing():
            # Else each is of a length of its own for the newer exporter.
            for i in range(1, 4 if self.parts == 2 else 2):
                torch._check(past[i].shape[2] == past[0].shape[2])
        past = tuple(past[i : i + self.parts] for i in range(0, len(past), self.parts))
        if self.parts == 2 and self.model._supports_cache_class:
            past = DynamicCache.from_legacy_cache(past)
        out = self.model(**self.given(first, second), past_key_values=past, use_cache=True)
        present = out.past_key_values
        if not isinstance(present, tuple):
            present = present.to_legacy_cache()
        return out.logits, *[t for layer in present for t in layer[:2]]

    def given(self, ids, mask):
        return dict(input_ids=ids, attention_mask=mask)


class CachedDecoder(Cached):
    """The decoder of two: the encoder's keys and values are in the past."""

    def given(self, ids, states):
        return dict(decoder_input_ids=ids, encoder_outputs=(states,))


def config(kind, how, more):
    c = kind(**more)
    c._attn_implementation = how
    return c


def encoder(name, model, kind, how, inputs, names, wants, most, axes=AXES, **more):
    def make():
        return (First, Second)[len(names) - 1](spread(model(config(kind, how, more))), names)

    return Case(f"{name}_{how}", make, inputs, wants, most, axes)


def decoder(name, model, kind, how, wants, most, layers=2, heads=4, size=8, past=5, **more):
    def make():
        return Cached(spread(model(config(kind, how, more))))

    # PyTorch's newer exporter takes an axis of one for a constant, and equal sizes for related.
    inputs = {"ids": numbers(3, 4, below=60), "mask": np.ones((3, past + 4), np.int64)}
    axes = {"ids": {0: "batch", 1: "rows"}, "mask": {0: "batch", 1: "past + rows"}}
    for i in range(layers):
        for what in "kv":
            inputs[f"past_{what}{i}"] = rows(3, heads, past, size, seed=i)
            axes[f"past_{what}{i}"] = {0: "batch", 2: "past"}
    return Case(f"{name}_past_{how}", make, inputs, wants, most, axes)


def translator(name, model, kind, how, wants, heads=4, size=8, past=3, read=6, **more):
    """The decoder of a model of one layer that reads what an encoder made."""

    def make():
        return CachedDecoder(spread(model(config(kind, how, more))), 4)

    inputs = {"ids": numbers(2, 3, below=60), "states": rows(2, read, heads * size)}
    axes = {"ids": {0: "batch", 1: "rows"}, "states": {0: "batch", 1: "read"}}
    for whose, length in (("past", past), ("read", read)):
        for what in "kv":
            inputs[f"{whose}_{what}"] = rows(2, heads, length, size, seed=length)
            axes[f"{whose}_{what}"] = {0: "batch", 2: whose}
    return Case(f"{name}_past_{how}", make, inputs, wants, 0, axes)


def all_cases():
    text, two = ("input_ids",), ("input_ids", "attention_mask")
    for how in ("eager", "sdpa"):
        yield encoder("bert", tr.BertModel, tr.BertConfig, how, MASKED, two, "Attention 2", 0, **TEXT)
        yield encoder("roberta", tr.RobertaModel, tr.RobertaConfig, how, MASKED, two, "Attention 2", 0, **TEXT)
        small = dict(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=32)
        yield encoder("distilbert", tr.DistilBertModel, tr.DistilBertConfig, how, MASKED, two, "Attention 2", 0, **small)
        few = TEXT | dict(num_key_value_heads=2)
        gpt2 = dict(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=32)
        yield encoder("gpt2", tr.GPT2LMHeadModel, tr.GPT2Config, how, IDS, text, "Attention 2", 0, use_cache=False, **gpt2)
        yield decoder("gpt2", tr.GPT2LMHeadModel, tr.GPT2Config, how, "Attention 2", 0, **gpt2)
        for name, model, kind in (
            ("llama", tr.LlamaForCausalLM, tr.LlamaConfig),
            ("mistral", tr.MistralForCausalLM, tr.MistralConfig),
            ("qwen2", tr.Qwen2ForCausalLM, tr.Qwen2Config),
        ):
            yield encoder(name, model, kind, how, MASKED, two, "Attention 2, RotaryEmbedding 4", 0, use_cache=False, **few)
            yield decoder(name, model, kind, how, "Attention 2, RotaryEmbedding 4", 0, heads=2, **few)
        yield encoder("gemma2", tr.Gemma2ForCausalLM, tr.Gemma2Config, how, MASKED, two, "Attention 2, RotaryEmbedding 4", 0, use_cache=False, head_dim=8, **few)
        yield encoder("phi", tr.PhiForCausalLM, tr.PhiConfig, how, MASKED, two, "Attention 2, RotaryEmbedding 4", 0, use_cache=False, **TEXT)
        yield encoder("gpt_neox", tr.GPTNeoXForCausalLM, tr.GPTNeoXConfig, how, MASKED, two, "Attention 2, RotaryEmbedding 4", 0, use_cache=False, **TEXT)
        opt = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48, max_position_embeddings=32, word_embed_proj_dim=32)
        yield decoder("phi", tr.PhiForCausalLM, tr.PhiConfig, how, "Attention 2, RotaryEmbedding 4", 0, **TEXT)
        yield decoder("gpt_neox", tr.GPTNeoXForCausalLM, tr.GPTNeoXConfig, how, "Attention 2, RotaryEmbedding 4", 0, **TEXT)
        yield encoder("opt", tr.OPTForCausalLM, tr.OPTConfig, how, MASKED, two, "Attention 2", 0, use_cache=False, **opt)
        yield decoder("opt", tr.OPTForCausalLM, tr.OPTConfig, how, "Attention 2", 0, **opt)
        seq2seq = dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48)
        whisper = seq2seq | dict(vocab_size=60, num_mel_bins=8, max_source_positions=10, max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
        heard = {"x": rows(2, 8, 20), "ids": numbers(2, 4, below=60)}
        yield encoder("whisper", tr.WhisperForConditionalGeneration, tr.WhisperConfig, how, heard, ("input_features", "decoder_input_ids"), "Attention 3", 0, {"x": {0: "batch"}, "ids": AXES["ids"]}, use_cache=False, **whisper)
        yield translator("whisper", tr.WhisperForConditionalGeneration, tr.WhisperConfig, how, "Attention 2", read=10, **whisper)
        bart = seq2seq | dict(vocab_size=60, max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2)
        yield encoder("bart", tr.BartModel, tr.BartConfig, how, IDS | {"to": numbers(2, 4, below=60)}, ("input_ids", "decoder_input_ids"), "Attention 3", 0, AXES | {"to": {0: "batch", 1: "others"}}, use_cache=False, **bart)
        yield translator("bart", tr.BartForConditionalGeneration, tr.BartConfig, how, "Attention 2", **bart)
        image = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8)
        yield encoder("vit", tr.ViTModel, tr.ViTConfig, how, PICTURE, ("pixel_values",), "Attention 2", 0, {"x": {0: "batch"}}, **image)
        yield encoder("deit", tr.DeiTModel, tr.DeiTConfig, how, PICTURE, ("pixel_values",), "Attention 2", 0, {"x": {0: "batch"}}, **image)
        yield encoder("dinov2", tr.Dinov2Model, tr.Dinov2Config, how, PICTURE, ("pixel_values",), "Attention 2", 0, {"x": {0: "batch"}}, mlp_ratio=2, **image)
        yield encoder("clip_vision", tr.CLIPVisionModel, tr.CLIPVisionConfig, how, PICTURE, ("pixel_values",), "Attention 2", 0, {"x": {0: "batch"}}, **image)
        yield encoder("clip_text", tr.CLIPTextModel, tr.CLIPTextConfig, how, IDS, text, "Attention 2", 0, eos_token_id=2, **TEXT)
    how = "eager"
    gptj = dict(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=32, rotary_dim=4)
    yield encoder("gptj", tr.GPTJForCausalLM, tr.GPTJConfig, how, IDS, text, "Attention 2, RotaryEmbedding 4", 0, use_cache=False, **gptj)
    t5 = dict(vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    both = IDS | {"to": numbers(2, 4, below=60)}
    yield encoder("t5", tr.T5Model, tr.T5Config, how, both, ("input_ids", "decoder_input_ids"), "Attention 3, RMSNormalization 5", 0, AXES | {"to": {0: "batch", 1: "others"}}, use_cache=False, **t5)
    yield translator("t5", tr.T5ForConditionalGeneration, tr.T5Config, how, "Attention 2", **t5)
    yield encoder("bloom", tr.BloomForCausalLM, tr.BloomConfig, how, MASKED, ("input_ids", "attention_mask"), "Attention 2", 0, vocab_size=60, hidden_size=32, n_layer=2, n_head=4, use_cache=False)
    yield decoder("bloom", tr.BloomForCausalLM, tr.BloomConfig, how, "Attention 2", 0, vocab_size=60, hidden_size=32, n_layer=2, n_head=4)
    yield encoder("deberta", tr.DebertaV2Model, tr.DebertaV2Config, how, MASKED, ("input_ids", "attention_mask"), "", 0, relative_attention=True, pos_att_type=["p2c", "c2p"], type_vocab_size=0, **TEXT)
    swin = dict(image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4)
    yield encoder("swin", tr.SwinModel, tr.SwinConfig, how, PICTURE, ("pixel_values",), "Attention 4", 0, {"x": {0: "batch"}}, **swin)
    nxt = dict(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32)
    yield encoder("convnext", tr.ConvNextModel, tr.ConvNextConfig, how, PICTURE, ("pixel_values",), "", 0, {"x": {0: "batch"}}, **nxt)
    seg = dict(num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2])
    yield encoder("segformer", tr.SegformerModel, tr.SegformerConfig, how, PICTURE, ("pixel_values",), "Attention 2", 0, {"x": {0: "batch"}}, **seg)
    wav = dict(vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)
    yield encoder("wav2vec2", tr.Wav2Vec2Model, tr.Wav2Vec2Config, how, {"x": rows(2, 400)}, ("input_values",), "Attention 1", 0, {"x": {0: "batch"}}, **wav)
