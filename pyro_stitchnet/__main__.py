"""``python -m pyro_stitchnet`` is `stitchnet`; `torchrun -m` and Fabric's own launcher need it."""

from pyro_stitchnet.cli import main

if __name__ == "__main__":
    main()
