"""Certificates for this machine, of authorities that the tests make with openssl."""

import subprocess
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def authority(folder: Path) -> Path:
    """A new authority's certificate; its key lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / "authority.pem"
    made = ("-keyout", own.with_suffix(".key"), "-out", own, "-days", 2, "-subj", "/CN=localhost")
    openssl("req", "-x509", *KEY, *made)
    return own


def certificate(signer: Path, name: str, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for an address, and its key."""
    made, key, asked = (signer.with_name(f"{name}.{ending}") for ending in ("pem", "key", "csr"))
    extension = signer.with_name(f"{name}.cnf")
    extension.write_text(f"subjectAltName=IP:{host}\n")
    openssl("req", "-new", *KEY, "-keyout", key, "-out", asked, "-subj", f"/CN={name}")
    by = ("-CA", signer, "-CAkey", signer.with_suffix(".key"), "-CAcreateserial")
    openssl("x509", "-req", "-in", asked, *by, "-out", made, "-days", 2, "-extfile", extension)
    return made, key
