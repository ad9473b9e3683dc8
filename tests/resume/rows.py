"""P6: the rows of the resume table. A model class, regime, task or option that vitexp offers must stand in one.

Each is trained twice, once killed in the middle of an epoch and again in the session that went on.
"""

SMALL = ("data=fake", "size=16", "data.sizes=[24,8,8]", "bs=8", "epochs=2")
TUNED = (*SMALL, "model=vit_nano", "model.pool=token", "model.depth=2", "model.dim=16", "checkpoint=base.safetensors")
BOXES = (
    *("data=coco_folder", "size=64", "bs=4", "epochs=2", "data.num_workers=0", "data.root=boxes"),
    *("model.dim=32", "model.num_queries=8", "model.depths=[1,2]", "model.mlp_dim=32", "model.dropout=0.1"),
)

MODELS = {
    "vit": (*SMALL, "model=vit_nano", "model.dropout=0.1", "model.drop_path_rate=0.2", "model.depth=2"),
    "vit behind a resnet": (*SMALL, "model=vit_rti_16", "size=32", "model.depth=1"),
    "deepvit": (*SMALL, "model=deepvit_s", "model.dim=24", "model.depth=4", "model.layout.plain_blocks=2"),
    "swinv2": (*SMALL, "model=swinv2", "model.dim=12", "model.depths=[2,2]", "model.num_heads=[1,2]", "size=32"),
    "efficientvit": (*SMALL, "model=efficientvit_m0", "model.dims=[16,32,32]", "size=32"),
    "mobilevit": (*SMALL, "model=mobilevit_xxs", "size=32"),
    "mobilevitv2": (*SMALL, "model=mobilevitv2_050", "size=32"),
    "navit": (*SMALL, "model=navit_nano", "model.dim=24", "model.depth=2", "size=32"),
    "timm": (*SMALL, "model=timm", "model.name=test_convnext", "size=32", "model.options={drop_path_rate:0.2}"),
    "torchvision": (*SMALL, "model=torchvision", "model.name=shufflenet_v2_x0_5", "size=32"),
    "detr": (*BOXES, "model=detr_nano", "model.backbone.dim=32", "model.backbone.stem.channels=[4,8,8,8,8]"),
    "detr on a resnet": (*BOXES, "model=detr_r50", "data.longest=1.0", "epochs=1", "data.batch_size=2"),
}
REGIMES = {
    "full": (*TUNED, "regime=full"),
    "head": (*TUNED, "regime=head"),
    "head, embedded once": (*TUNED, "regime=head", "regime.cache=true", "augment=none"),
    "head with a batch norm": (*MODELS["efficientvit"], "regime=head", "select=best", "optimizer.lr=0.05"),
    "class_token": (*TUNED, "regime=class_token"),
    "memory": (*TUNED, "regime=memory"),
    "memory_masked": (*TUNED, "regime=memory_masked", "trainer.ema=0.9"),
    "memory_masked, embedded once": (*TUNED, "regime=memory_masked", "regime.cache=true", "augment=none"),
    "extension": (*TUNED, "regime=extension", "regime.earlier=[earlier.safetensors]"),
    "bias": (*TUNED, "regime=bias"),
    "lora": (*TUNED, "regime=lora"),
    "vpt": (*TUNED, "regime=vpt"),
}
OPTIONS = {
    "accumulation": (*MODELS["vit"], "trainer.accumulate=2"),
    "average of the weights": (*MODELS["vit"], "trainer.ema=0.9", "select=best"),
    "mixup, CutMix, RandAugment, erasing": (*MODELS["vit"], "augment=strong", "augment.off_epochs=1"),
    "bfloat16": (*MODELS["vit"], "precision=bf16"),
    "analysis while training": (*MODELS["vit"], "analysis=similarity", "analysis.every=1", "analysis.num_images=4"),
    "batch norms averaged": (*MODELS["efficientvit"], "trainer.ema=0.9", "trainer.accumulate=2"),
    "every optimizer": (*MODELS["vit"], "optimizer=lamb", "schedule=step"),
    "validated every other epoch": (*MODELS["vit"], "trainer.validate_every=2"),
    "images of one size a batch": (*MODELS["mobilevit"], "data.sampler=multi_scale"),
    "images packed": (*MODELS["navit"], "data.sampler=packed", "trainer.accumulate=2"),
    "query denoising": (*MODELS["detr"], "task.denoising.groups=2"),
}
ROWS = {**MODELS, **REGIMES, **OPTIONS}
# Nothing trains in these, so nothing resumes.
WITHOUT_TRAINING = {"concat"}
