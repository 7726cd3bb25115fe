"""C2PA signatures on grids and archives, by a certificate chain of this test alone."""

from __future__ import annotations

import datetime
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.errors import UserError
from pipeline.registry import credentials, provenance, samples, trace
from pipeline.registry.credentials import Signing
from pipeline.registry.provenance import Origin

ORIGIN = Origin("gan-x/1", "a" * 64, "run", 7, None, 4)


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: ec.EllipticCurvePrivateKey, *, root: bool
) -> bytes:
    """What C2PA asks of a certificate: a chain, and a purpose at its end."""

    def called(text: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, text),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"),
            ]
        )

    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(not root, False, False, False, False, root, root, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(called(name))
        .issuer_name(called("root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), False
        )
    )
    if not root:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture(scope="session")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Signing:
    folder = tmp_path_factory.mktemp("certificates")
    root, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = certificate("signer", key, root, root=False) + certificate(
        "root", root, root, root=True
    )
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return Signing(folder / "chain.pem", folder / "key.pem")


@pytest.fixture
def batch(quick_store: None) -> samples.Batch:
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    return samples.Batch(images, ORIGIN, "k" * 64)


def test_a_signed_grid_says_who_signed_and_what(batch, signing, tmp_path: Path) -> None:
    path = samples.write(batch, tmp_path / "grid.png", as_grid=True, signing=signing)
    found = credentials.read(path)
    assert found is not None
    assert (found.valid, found.signer, found.problems) == (True, "signer, Tests", [])
    assert found.origin is not None
    assert (found.origin.seed, found.origin.weights, found.origin.model) == (7, "a" * 64, "gan-x/1")
    # The metadata that `gan trace` reads are still there.
    assert trace.origin_of(path) == found.origin


def test_an_unsigned_one_has_no_credentials(batch, tmp_path: Path) -> None:
    assert credentials.read(samples.write(batch, tmp_path / "grid.png", as_grid=True)) is None


def test_tampering_with_a_grid_is_found(batch, signing, tmp_path: Path) -> None:
    path = samples.write(batch, tmp_path / "grid.png", as_grid=True, signing=signing)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'gan:seed="7"', b'gan:seed="8"'))
    found = credentials.read(path)
    assert found is not None
    assert not found.valid
    assert found.problems


def test_an_archive_is_signed_and_tampering_with_an_image_in_it_found(
    batch, signing, tmp_path: Path
) -> None:
    path = samples.write(batch, tmp_path / "batch.zip", as_grid=False, signing=signing)
    found = credentials.read(path)
    assert found is not None
    assert found.valid
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.startswith("META-INF")]
        archive.extractall(tmp_path / "out")
    assert names == ["manifest.json", *(f"seed7_{i:05d}.png" for i in range(4))]
    origin = trace.origin_of(tmp_path / "out" / "seed7_00002.png")
    assert origin is not None
    assert origin.index == 2
    content = bytearray(path.read_bytes())
    content[content.find(b"IDAT") + 8] ^= 1
    path.write_bytes(content)
    found = credentials.read(path)
    assert found is not None
    assert not found.valid


def test_the_manifest_has_the_hash_of_the_signed_file(batch, signing, tmp_path: Path) -> None:
    from pipeline import files

    path = samples.write(batch, tmp_path / "grid.png", as_grid=True, signing=signing)
    (entry,) = files.read_json(tmp_path / "grid.json")["files"]
    assert entry["sha256"] == files.file_hash(path)


def test_what_will_not_do_is_one_clear_line(signing, tmp_path: Path) -> None:
    for wrong, said in (
        (Signing(signing.certificates, signing.certificates), "no private key in PEM"),
        (Signing(tmp_path / "none.pem", signing.key), "No such file"),
    ):
        with pytest.raises(UserError, match=said):
            credentials.check(wrong)
    picture = tmp_path / "x.png"
    picture.write_bytes(provenance.png(np.zeros((4, 4, 1), np.uint8), ORIGIN))
    before = picture.read_bytes()
    with pytest.raises(UserError, match="could not be signed"):
        credentials.sign(picture, Signing(signing.key, signing.key), ORIGIN)
    assert picture.read_bytes() == before
    assert [path.name for path in tmp_path.glob("*x.png*")] == ["x.png"]


def test_without_the_library_it_says_what_to_install(signing, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(UserError, match=r"pip install 'gan-pipeline\[c2pa\]'"):
        credentials.check(signing)
    assert not credentials.has_library()
