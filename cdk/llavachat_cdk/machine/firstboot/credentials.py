"""Key and certificate: from Secrets Manager to files that only root can read."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from firstboot.account import CallFailed, call

VALID_DAYS = 3650
RENEW_SECONDS = 90 * 24 * 3600
"""A certificate that ends sooner than this is made anew by the next machine."""

RIGHTS_SECONDS = 90.0
"""For so long a refusal is not the last word: the role's policy was made moments before the
machine, and may take that long to be in force everywhere. Source: IAM User Guide, "Changes that I
make are not always immediately visible"."""

PAUSE_SECONDS = 2.0


def read_secret(arn: str) -> str:
    """The secret's text."""
    # By time: where no call comes through, a number of tries would take the whole boot.
    deadline = time.monotonic() + RIGHTS_SECONDS
    while True:
        try:
            answer = call("secretsmanager", "get-secret-value", "--secret-id", arn)
            return str(answer["SecretString"])
        except CallFailed:
            if time.monotonic() >= deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def write_secret(arn: str, text: str) -> None:
    """Keep a text in a secret; it passes through a file, never through the process list."""
    with tempfile.NamedTemporaryFile("w", dir="/run") as file:
        file.write(text)
        file.flush()
        arguments = ("--secret-id", arn, "--secret-string", f"file://{file.name}")
        call("secretsmanager", "put-secret-value", *arguments)


def write_private(path: Path, text: str) -> None:
    """A file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(path.name + ".new")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)


def bring(
    folder: Path, api_key: str, certificate: str, domain: str, say: Callable[[str], None]
) -> dict[str, str] | None:
    """Put ``api-key``, ``tls.crt`` and ``tls.key`` into `folder`.

    The certificate is made only if none is kept yet, or the one kept is for another name or ends
    soon: clients go on trusting the one they have. One that was made is not in the secret yet:
    clients read there what to trust, and the machine before this one may go on serving its own.

    Args:
        api_key: ARN of the key's secret.
        certificate: ARN of the certificate's secret.
        domain: private DNS name to be valid for besides localhost; may be empty.

    Returns:
        A certificate that was made, for `write_secret` once it is served; None if one was kept.
    """
    write_private(folder / "api-key", read_secret(api_key).strip() + "\n")
    kept = json.loads(read_secret(certificate))
    made = None if is_good(kept, domain) else make_certificate(domain)
    say("certificate: made anew" if made else "certificate: the one kept")
    served = made or kept
    write_private(folder / "tls.crt", served["certificate"])
    write_private(folder / "tls.key", served["private_key"])
    return made


def is_good(kept: dict[str, str], domain: str) -> bool:
    """Whether what is kept is a certificate for `domain` that lasts."""
    if not kept.get("certificate") or not kept.get("private_key"):
        return False
    # Two runs: openssl leaves the name out once it has looked at the end.
    lasts = ask_openssl(kept["certificate"], "-checkend", str(RENEW_SECONDS))
    named = ask_openssl(kept["certificate"], "-checkhost", domain or "localhost")
    return lasts.returncode == 0 and "does match" in named.stdout + named.stderr


def ask_openssl(certificate: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Look at a certificate."""
    command = ["openssl", "x509", "-noout", *words]
    return subprocess.run(command, input=certificate, capture_output=True, text=True, check=False)


def make_certificate(domain: str) -> dict[str, str]:
    """A self-signed certificate for `domain` and localhost, and its key."""
    names = [f"DNS:{name}" for name in (domain, "localhost") if name] + ["IP:127.0.0.1"]
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        key, certificate = Path(folder, "key"), Path(folder, "certificate")
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-sha256", "-days", str(VALID_DAYS)),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                # Not the domain, as no more than 64 characters fit here; clients look for names in
                # the alternative names alone. Source: RFC 5280, ub-common-name; RFC 9525.
                *("-subj", "/CN=llavachat"),
                *("-addext", "subjectAltName=" + ",".join(names)),
                *("-addext", "extendedKeyUsage=serverAuth"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        return {"certificate": certificate.read_text(), "private_key": key.read_text()}
