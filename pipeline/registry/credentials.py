"""C2PA content credentials: a signed statement in a grid or an archive of who made it with what.

The extra `c2pa` brings c2pa-python. A signature says that nothing was changed since; whose it is
says the certificate, and whether one trusts that is for the reader to decide.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from pipeline.errors import UserError
from pipeline.registry.provenance import SOURCE_TYPE, Origin

FORMATS = {".png": "image/png", ".zip": "application/x-zip"}  # by its own names
ORIGIN = "io.gan-pipeline.origin"  # the assertion with what an image's metadata says
NO_THUMBNAIL = {"builder": {"thumbnail": {"enabled": False}}}  # larger than a grid of digits


@dataclass(frozen=True)
class Signing:
    """PEM files: the signer's certificate and those up to its root's, and its private key."""

    certificates: Path
    key: Path


@dataclass(frozen=True)
class Credentials:
    """`valid`: nothing was changed since `signer` signed. `origin`: what was signed."""

    valid: bool
    signer: str
    origin: Origin | None
    problems: list[str]


def sign(path: Path, signing: Signing, origin: Origin) -> None:
    """Sign the PNG or ZIP file in place.

    Raises UserError where the extra is missing, or the certificate or the key will not do.
    """
    c2pa = _library()
    manifest = {
        "claim_generator_info": [{"name": "gan-pipeline", "version": version("gan-pipeline")}],
        "title": path.name,
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}]},
            },
            {"label": ORIGIN, "data": dataclasses.asdict(origin)},
        ],
    }
    certificates, key = (_read(x) for x in (signing.certificates, signing.key))
    info = c2pa.C2paSignerInfo(_algorithm(key, signing.key), certificates, key, None)
    signed = path.with_name(f".{path.name}.signed")
    try:
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Context.from_dict(NO_THUMBNAIL) as context,
            c2pa.Builder(manifest, context) as builder,
            path.open("rb") as source,
            signed.open("w+b") as target,
        ):
            builder.sign(signer, FORMATS[path.suffix], source, target)
        signed.replace(path)
    except c2pa.C2paError as error:
        raise UserError(
            f"{path} could not be signed with {signing.certificates}: {error}"
        ) from None
    finally:
        signed.unlink(missing_ok=True)


def read(path: Path) -> Credentials | None:
    """The credentials in a PNG or ZIP file; None where there are none.

    Raises UserError where the extra is missing.
    """
    c2pa = _library()
    try:
        with path.open("rb") as source, c2pa.Reader(FORMATS[path.suffix], source) as reader:
            told = json.loads(reader.json())
    except c2pa.C2paError as error:
        if "ManifestNotFound" in str(error):
            return None
        return Credentials(False, "", None, [str(error)])
    active = told["manifests"].get(told.get("active_manifest"), {})
    origins = [x["data"] for x in active.get("assertions", []) if x["label"] == ORIGIN]
    signature = active.get("signature_info", {})
    return Credentials(
        valid=told["validation_state"] in ("Valid", "Trusted"),
        signer=", ".join(filter(None, (signature.get("common_name"), signature.get("issuer")))),
        origin=Origin(**origins[0]) if origins else None,
        problems=[
            x["explanation"]
            for x in told.get("validation_status", [])
            if x["code"] != "signingCredential.untrusted"
        ],
    )


def check(signing: Signing) -> None:
    """Raises UserError where nothing could be signed, before anything is made."""
    _library()
    _algorithm(_read(signing.key), signing.key)
    _read(signing.certificates)


def has_library() -> bool:
    try:
        _library()
    except UserError:
        return False
    return True


def _library() -> ModuleType:
    try:
        import c2pa
    except ImportError:
        raise UserError(
            "content credentials need c2pa-python: pip install 'gan-pipeline[c2pa]'"
        ) from None
    return c2pa


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _algorithm(key: bytes, path: Path) -> bytes:
    """C2PA's name of the signature that a private key makes."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise UserError(f"{path} is no private key in PEM without a password") from None
    if isinstance(loaded, ec.EllipticCurvePrivateKey):
        name = {256: b"es256", 384: b"es384", 521: b"es512"}.get(loaded.curve.key_size)
        if name:
            return name
    if isinstance(loaded, rsa.RSAPrivateKey):
        return b"ps256"
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    raise UserError(f"{path}: C2PA takes keys of P-256, P-384, P-521, RSA and Ed25519")
