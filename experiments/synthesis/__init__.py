"""What one classifier can draw: generation, translation, inpainting, super-resolution, sketches.

    python -m experiments.synthesis --workdir=runs/synthesis

One ascent, six tasks, standard network beside robust network (Santurkar et al. 2019,
https://arxiv.org/abs/1906.09453), and large-eps attacks side by side. Quality in numbers: do
independent networks, a standard and a robust one of another architecture, read the class that was
drawn; Fréchet distance and diversity in the representation of the independent robust one, beside
real images and seeds; PSNR and SSIM against bicubic and the mean where there is an original.

By default on the samples that come with the package, of which three of each class stand in for the
training images that seeds are fitted to; `--dataset=cifar10`, once prepared, is the whole set (two
CPU cores: 2 minutes 20). Numbers: docs/results/pictures.md.
"""
