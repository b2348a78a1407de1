"""The tensors of models by name and shape, slowest dimension first: the real sizes unless smaller ones are asked for. Read from
the pinned engine's sources (src/*.hpp), which make these tensors and refuse a file that lacks one."""

from __future__ import annotations

from collections.abc import Iterator

from fabricated.sparse import Shape

Shapes = Iterator[tuple[str, Shape]]


def linear(name: str, rows: int, columns: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def norm(name: str, size: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (size,)
    if bias:
        yield f"{name}.bias", (size,)


def conv(name: str, outputs: int, inputs: int, kernel: int = 3) -> Shapes:
    yield f"{name}.weight", (outputs, inputs, kernel, kernel)
    yield f"{name}.bias", (outputs,)


def flux(h: int = 3072, double: int = 19, single: int = 38, context: int = 4096, guidance: bool = False) -> Shapes:
    """FLUX.1, at its own size unless another width and depth are named; heads are 128 wide."""
    yield from linear("img_in", h, 64)
    yield from linear("txt_in", h, context)
    for name, width in (("time_in", 256), ("vector_in", 768), *((("guidance_in", 256),) if guidance else ())):
        yield from linear(f"{name}.in_layer", h, width)
        yield from linear(f"{name}.out_layer", h, h)
    for i in range(double):
        for side in ("img", "txt"):
            p = f"double_blocks.{i}.{side}"
            yield from linear(f"{p}_mod.lin", 6 * h, h)
            yield from linear(f"{p}_attn.qkv", 3 * h, h)
            yield f"{p}_attn.norm.query_norm.scale", (128,)
            yield f"{p}_attn.norm.key_norm.scale", (128,)
            yield from linear(f"{p}_attn.proj", h, h)
            yield from linear(f"{p}_mlp.0", 4 * h, h)
            yield from linear(f"{p}_mlp.2", h, 4 * h)
    for i in range(single):
        p = f"single_blocks.{i}"
        yield from linear(f"{p}.linear1", 7 * h, h)
        yield from linear(f"{p}.linear2", h, 5 * h)
        yield f"{p}.norm.query_norm.scale", (128,)
        yield f"{p}.norm.key_norm.scale", (128,)
        yield from linear(f"{p}.modulation.lin", 3 * h, h)
    yield from linear("final_layer.linear", 64, h)
    yield from linear("final_layer.adaLN_modulation.1", 2 * h, h)


def klein(h: int = 3072, double: int = 5, single: int = 20, context: int = 7680) -> Shapes:
    """FLUX.2 klein 4B."""
    for name, rows, columns in (
        ("img_in", h, 128),
        ("txt_in", h, context),
        ("time_in.in_layer", h, 256),
        ("time_in.out_layer", h, h),
    ):
        yield from linear(name, rows, columns, bias=False)
    for side in ("img", "txt"):
        yield from linear(f"double_stream_modulation_{side}.lin", 6 * h, h, bias=False)
    yield from linear("single_stream_modulation.lin", 3 * h, h, bias=False)
    for i in range(double):
        for side in ("img", "txt"):
            p = f"double_blocks.{i}.{side}"
            yield from linear(f"{p}_attn.qkv", 3 * h, h, bias=False)
            yield f"{p}_attn.norm.query_norm.scale", (128,)
            yield f"{p}_attn.norm.key_norm.scale", (128,)
            yield from linear(f"{p}_attn.proj", h, h, bias=False)
            yield from linear(f"{p}_mlp.0", 6 * h, h, bias=False)
            yield from linear(f"{p}_mlp.2", h, 3 * h, bias=False)
    for i in range(single):
        p = f"single_blocks.{i}"
        yield from linear(f"{p}.linear1", 9 * h, h, bias=False)
        yield from linear(f"{p}.linear2", h, 4 * h, bias=False)
        yield f"{p}.norm.query_norm.scale", (128,)
        yield f"{p}.norm.key_norm.scale", (128,)
    yield from linear("final_layer.linear", 128, h, bias=False)
    yield from linear("final_layer.adaLN_modulation.1", 2 * h, h, bias=False)


def clip(d: int = 768, layers: int = 12, mlp: int = 3072, prefix: str = "text_model.") -> Shapes:
    """CLIP-L; with (1280, 32, 5120) CLIP-G, which also projects."""
    yield f"{prefix}embeddings.token_embedding.weight", (49408, d)
    yield f"{prefix}embeddings.position_embedding.weight", (77, d)
    for i in range(layers):
        p = f"{prefix}encoder.layers.{i}"
        for part in ("q", "k", "v", "out"):
            yield from linear(f"{p}.self_attn.{part}_proj", d, d)
        yield from norm(f"{p}.layer_norm1", d)
        yield from norm(f"{p}.layer_norm2", d)
        yield from linear(f"{p}.mlp.fc1", mlp, d)
        yield from linear(f"{p}.mlp.fc2", d, mlp)
    yield from norm(f"{prefix}final_layer_norm", d)
    if d > 768:
        yield f"{prefix}text_projection", (d, d)


def clip_g(prefix: str = "text_model.") -> Shapes:
    return clip(1280, 32, 5120, prefix)


def t5(vocabulary: int = 32128, d: int = 4096, layers: int = 24, ff: int = 10240) -> Shapes:
    """T5-XXL's encoder; with 256384 words UMT5-XXL, whose every layer has its own position bias."""
    yield "shared.weight", (vocabulary, d)
    for i in range(layers):
        p = f"encoder.block.{i}.layer"
        for part in "qkvo":
            yield f"{p}.0.SelfAttention.{part}.weight", (d, d)
        if i == 0 or vocabulary > 200_000:
            yield f"{p}.0.SelfAttention.relative_attention_bias.weight", (32, 64)
        yield f"{p}.0.layer_norm.weight", (d,)
        yield f"{p}.1.DenseReluDense.wi_0.weight", (ff, d)
        yield f"{p}.1.DenseReluDense.wi_1.weight", (ff, d)
        yield f"{p}.1.DenseReluDense.wo.weight", (d, ff)
        yield f"{p}.1.layer_norm.weight", (d,)
    yield "encoder.final_layer_norm.weight", (d,)


def llm(kind: str = "qwen3", d: int = 2560, layers: int = 36, mlp: int = 9728, vocabulary: int = 151936) -> Shapes:
    """Qwen3-4B; `qwen2.5` has biases and 28 heads, `mistral` neither biases nor norms."""
    heads, groups = (28, 4) if kind == "qwen2.5" else (32, 8)
    yield "token_embd.weight", (vocabulary, d)
    for i in range(layers):
        p = f"blk.{i}"
        bias = kind == "qwen2.5"
        yield f"{p}.attn_norm.weight", (d,)
        yield from linear(f"{p}.attn_q", heads * 128, d, bias)
        yield from linear(f"{p}.attn_k", groups * 128, d, bias)
        yield from linear(f"{p}.attn_v", groups * 128, d, bias)
        yield f"{p}.attn_output.weight", (d, heads * 128)
        if kind == "qwen3":
            yield f"{p}.attn_q_norm.weight", (128,)
            yield f"{p}.attn_k_norm.weight", (128,)
        yield f"{p}.ffn_norm.weight", (d,)
        yield f"{p}.ffn_gate.weight", (mlp, d)
        yield f"{p}.ffn_up.weight", (mlp, d)
        yield f"{p}.ffn_down.weight", (d, mlp)
    yield "output_norm.weight", (d,)


def _resnet(name: str, inputs: int, outputs: int) -> Shapes:
    yield from norm(f"{name}.norm1", inputs)
    yield from conv(f"{name}.conv1", outputs, inputs)
    yield from norm(f"{name}.norm2", outputs)
    yield from conv(f"{name}.conv2", outputs, outputs)
    if inputs != outputs:
        yield from conv(f"{name}.nin_shortcut", outputs, inputs, 1)


def _middle(side: str, width: int) -> Shapes:
    yield from _resnet(f"{side}.mid.block_1", width, width)
    yield from norm(f"{side}.mid.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from conv(f"{side}.mid.attn_1.{part}", width, width, 1)
    yield from _resnet(f"{side}.mid.block_2", width, width)


def vae(z: int = 16, ch: int = 128, quant: bool = False, encoder: bool = False) -> Shapes:
    """The KL autoencoder; `quant`: with the 1 x 1 convolutions between it and the latents, as SD 1 to XL and FLUX.2 have."""
    width = 4 * ch
    yield from conv("decoder.conv_in", width, z)
    yield from _middle("decoder", width)
    for i, mult in reversed(list(enumerate((1, 2, 4, 4)))):
        for j in range(3):
            yield from _resnet(f"decoder.up.{i}.block.{j}", width, ch * mult)
            width = ch * mult
        if i:
            yield from conv(f"decoder.up.{i}.upsample.conv", width, width)
    yield from norm("decoder.norm_out", width)
    yield from conv("decoder.conv_out", 3, width)
    if quant:
        yield from conv("post_quant_conv", z, z, 1)
    if encoder:
        yield from conv("encoder.conv_in", ch, 3)


def _transformer(name: str, width: int, context: int, depth: int, linears: bool) -> Shapes:
    yield from norm(f"{name}.norm", width)
    for part in ("proj_in", "proj_out"):
        yield from linear(f"{name}.{part}", width, width) if linears else conv(f"{name}.{part}", width, width, 1)
    for i in range(depth):
        p = f"{name}.transformer_blocks.{i}"
        for number, inner in ((1, width), (2, context)):
            yield f"{p}.attn{number}.to_q.weight", (width, width)
            yield f"{p}.attn{number}.to_k.weight", (width, inner)
            yield f"{p}.attn{number}.to_v.weight", (width, inner)
            yield from linear(f"{p}.attn{number}.to_out.0", width, width)
        for number in (1, 2, 3):
            yield from norm(f"{p}.norm{number}", width)
        yield from linear(f"{p}.ff.net.0.proj", 8 * width, width)
        yield from linear(f"{p}.ff.net.2", width, 4 * width)


def unet(xl: bool = False) -> Shapes:
    """The UNet of Stable Diffusion 1 or XL."""
    c, time, context = 320, 1280, 2048 if xl else 768
    mults, depths = ((1, 2, 4), (0, 2, 10)) if xl else ((1, 2, 4, 4), (1, 1, 1, 0))
    p = "model.diffusion_model."

    def block(name: str, inputs: int, outputs: int) -> Shapes:
        yield from norm(f"{name}.in_layers.0", inputs)
        yield from conv(f"{name}.in_layers.2", outputs, inputs)
        yield from linear(f"{name}.emb_layers.1", outputs, time)
        yield from norm(f"{name}.out_layers.0", outputs)
        yield from conv(f"{name}.out_layers.3", outputs, outputs)
        if inputs != outputs:
            yield from conv(f"{name}.skip_connection", outputs, inputs, 1)

    yield from linear(f"{p}time_embed.0", time, c)
    yield from linear(f"{p}time_embed.2", time, time)
    if xl:
        yield from linear(f"{p}label_emb.0.0", time, 2816)
        yield from linear(f"{p}label_emb.0.2", time, time)
    yield from conv(f"{p}input_blocks.0.0", c, 4)
    number, width, widths = 0, c, [c]
    for level, (mult, depth) in enumerate(zip(mults, depths, strict=True)):
        for _ in range(2):
            number += 1
            yield from block(f"{p}input_blocks.{number}.0", width, mult * c)
            width = mult * c
            if depth:
                yield from _transformer(f"{p}input_blocks.{number}.1", width, context, depth, xl)
            widths.append(width)
        if level != len(mults) - 1:
            number += 1
            yield from conv(f"{p}input_blocks.{number}.0.op", width, width)
            widths.append(width)
    yield from block(f"{p}middle_block.0", width, width)
    yield from _transformer(f"{p}middle_block.1", width, context, max(depths[-1], 1), xl)
    yield from block(f"{p}middle_block.2", width, width)
    number = 0
    for level, (mult, depth) in reversed(list(enumerate(zip(mults, depths, strict=True)))):
        for j in range(3):
            yield from block(f"{p}output_blocks.{number}.0", width + widths.pop(), mult * c)
            width = mult * c
            if depth:
                yield from _transformer(f"{p}output_blocks.{number}.1", width, context, depth, xl)
            if level and j == 2:
                yield from conv(f"{p}output_blocks.{number}.{2 if depth else 1}.conv", width, width)
            number += 1
    yield from norm(f"{p}out.0", width)
    yield from conv(f"{p}out.2", 4, width)


def sd1() -> Shapes:
    """Stable Diffusion 1.5 as one file."""
    yield from unet()
    yield from clip(prefix="cond_stage_model.transformer.text_model.")
    yield from ((f"first_stage_model.{name}", shape) for name, shape in vae(4, quant=True))


def sdxl() -> Shapes:
    """Stable Diffusion XL as one file."""
    yield from unet(xl=True)
    yield from clip(prefix="conditioner.embedders.0.transformer.text_model.")
    yield from clip_g("cond_stage_model.1.transformer.text_model.")
    yield from ((f"first_stage_model.{name}", shape) for name, shape in vae(4, quant=True))


def z_image(layers: int = 30, refiners: int = 2) -> Shapes:
    """Z-Image; its width is fixed."""
    h, mlp = 3840, 10240
    yield from linear("x_embedder", h, 64)
    yield from linear("t_embedder.mlp.0", 1024, 256)
    yield from linear("t_embedder.mlp.2", 256, 1024)
    yield "cap_embedder.0.weight", (2560,)
    yield from linear("cap_embedder.1", h, 2560)
    yield "cap_pad_token", (1, h)
    yield "x_pad_token", (1, h)
    blocks = [f"noise_refiner.{i}" for i in range(refiners)] + [f"layers.{i}" for i in range(layers)]
    for p in (*blocks, *(f"context_refiner.{i}" for i in range(refiners))):
        yield f"{p}.attention.qkv.weight", (3 * h, h)
        yield f"{p}.attention.out.weight", (h, h)
        for name in ("q_norm", "k_norm"):
            yield f"{p}.attention.{name}.weight", (128,)
        for name in ("w1", "w3"):
            yield f"{p}.feed_forward.{name}.weight", (mlp, h)
        yield f"{p}.feed_forward.w2.weight", (h, mlp)
        for name in ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"):
            yield f"{p}.{name}.weight", (h,)
        if not p.startswith("context"):
            yield from linear(f"{p}.adaLN_modulation.0", 4 * h, 256)
    yield from linear("final_layer.linear", 64, h)
    yield from linear("final_layer.adaLN_modulation.1", h, 256)


def sd3(depth: int = 24, dual: int = 13) -> Shapes:
    """Stable Diffusion 3.5 medium: width 64 for each block, `dual` blocks with a second attention."""
    h = 64 * depth
    yield "pos_embed", (1, 384 * 384 if dual else 192 * 192, h)
    yield from conv("x_embedder.proj", h, 16, 2)
    for name, width in (("t", 256), ("y", 2048)):
        yield from linear(f"{name}_embedder.mlp.0", h, width)
        yield from linear(f"{name}_embedder.mlp.2", h, h)
    yield from linear("context_embedder", h, 4096)
    for i in range(depth):
        for side in ("context", "x"):
            p = f"joint_blocks.{i}.{side}_block"
            last = side == "context" and i == depth - 1
            attentions = ("attn", "attn2") if side == "x" and i < dual else ("attn",)
            for name in attentions:
                yield from linear(f"{p}.{name}.qkv", 3 * h, h)
                yield f"{p}.{name}.ln_q.weight", (64,)
                yield f"{p}.{name}.ln_k.weight", (64,)
                if not last:
                    yield from linear(f"{p}.{name}.proj", h, h)
            if not last:
                yield from linear(f"{p}.mlp.fc1", 4 * h, h)
                yield from linear(f"{p}.mlp.fc2", h, 4 * h)
            yield from linear(f"{p}.adaLN_modulation.1", (2 if last else 9 if len(attentions) == 2 else 6) * h, h)
    yield from linear("final_layer.linear", 64, h)
    yield from linear("final_layer.adaLN_modulation.1", 2 * h, h)


def qwen_image(layers: int = 60) -> Shapes:
    """Qwen-Image; its width is fixed."""
    h = 3072
    yield from linear("time_text_embed.timestep_embedder.linear_1", h, 256)
    yield from linear("time_text_embed.timestep_embedder.linear_2", h, h)
    yield "txt_norm.weight", (3584,)
    yield from linear("img_in", h, 64)
    yield from linear("txt_in", h, 3584)
    for i in range(layers):
        p = f"transformer_blocks.{i}"
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            yield from linear(f"{p}.attn.{name}", h, h)
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            yield f"{p}.attn.{name}.weight", (128,)
        for side in ("img", "txt"):
            yield from linear(f"{p}.{side}_mod.1", 6 * h, h)
            yield from linear(f"{p}.{side}_mlp.net.0.proj", 4 * h, h)
            yield from linear(f"{p}.{side}_mlp.net.2", h, 4 * h)
    yield from linear("norm_out.linear", 2 * h, h)
    yield from linear("proj_out", 64, h)


def video_vae() -> Shapes:
    """The decoder of Wan 2.1 and Qwen-Image. Convolutions over time have five dimensions, of which the engine folds the last
    two."""

    def conv3(name: str, outputs: int, inputs: int, kernel: tuple[int, int, int]) -> Shapes:
        yield f"{name}.weight", (outputs * inputs, *kernel)
        yield f"{name}.bias", (outputs,)

    def block(name: str, inputs: int, outputs: int) -> Shapes:
        yield f"{name}.residual.0.gamma", (inputs,)
        yield from conv3(f"{name}.residual.2", outputs, inputs, (3, 3, 3))
        yield f"{name}.residual.3.gamma", (outputs,)
        yield from conv3(f"{name}.residual.6", outputs, outputs, (3, 3, 3))
        if inputs != outputs:
            yield from conv3(f"{name}.shortcut", outputs, inputs, (1, 1, 1))

    yield from conv3("conv2", 16, 16, (1, 1, 1))
    yield from conv3("decoder.conv1", 384, 16, (3, 3, 3))
    yield from block("decoder.middle.0", 384, 384)
    yield "decoder.middle.1.norm.gamma", (384,)
    yield from conv("decoder.middle.1.to_qkv", 3 * 384, 384, 1)
    yield from conv("decoder.middle.1.proj", 384, 384, 1)
    yield from block("decoder.middle.2", 384, 384)
    index, width = 0, 384
    for level, outputs in enumerate((384, 384, 192, 96)):
        width = width // 2 if level else width
        for _ in range(3):
            yield from block(f"decoder.upsamples.{index}", width, outputs)
            width = outputs
            index += 1
        if level < 3:
            yield from conv(f"decoder.upsamples.{index}.resample.1", width // 2, width)
            if level < 2:
                yield from conv3(f"decoder.upsamples.{index}.time_conv", 2 * width, width, (3, 1, 1))
            index += 1
    yield "decoder.head.0.gamma", (96,)
    yield from conv3("decoder.head.2", 3, 96, (3, 3, 3))
