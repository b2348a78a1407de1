"""Which CUDA code a file or an image really carries, read from the file itself: no toolkit, no GPU, no driver.

`inspect_file` reads one ELF file, object or static library; `inspect_archive` an image in a tar. Both give an `Inspection`,
which `verdict.judge` turns into what happens on a given GPU.
"""
