"""What can a classifier draw? Generation, translation, inpainting, super-resolution, sketches.

    python -m experiments.synthesis --workdir=runs/synthesis

One ascent performs six tasks with a standard and a robust network (Santurkar et al. 2019,
https://arxiv.org/abs/1906.09453), and large-eps attacks are compared. Quality in numbers: whether
independent networks, a standard and a robust one of another architecture, recognise the target
class; Fréchet distance and diversity in the representation of the independent robust one, compared
with real images and seeds; PSNR and SSIM compared with bicubic and the mean if there is an
original.

By default on the samples that come with the package, of which three per class replace the training
images that seeds are fitted to; `--dataset=cifar10`, once prepared, uses the whole set (two
CPU cores: 2 minutes 20). Numbers: docs/results/pictures.md.
"""
