"""What runs on an emulated machine that does not boot: a real server, of the release it was given.

It has the account's own key and a certificate of its own, as a booted machine would, and takes
the chats over from the machine before it.
"""

import hashlib
import json
import os
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

from conftest import ROOT
from emulated.account import Account, find_port
from emulated.sessions import AWAY

PROGRAMS = ROOT / ".venv" / "bin"
PICTURE = ROOT / "client" / "llavachat" / "cli" / "demo.png"


class Service:
    """The service of one account's only machine.

    Attributes:
        port: of this machine.
        holder: the machine that has the chats, and serves if it runs.
        trouble: what the first boot of a new machine fails with, in the log's words; "" for none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = find_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.holder = ""
        self.trouble = ""

    def launch(self, account: Account, instance: str) -> None:
        """A machine boots: for the first time, or again."""
        AWAY.add(instance)
        deployment = account.read_deployment(instance)
        if self.trouble and instance != self.holder:
            self.tell(account, deployment, instance, self.trouble)
            self.signal(account, deployment, instance, "FAILURE")
            return
        try:
            self.take_over(account, instance)
            self.keep_certificate(account, deployment)
            # The agent is there before the service is.
            AWAY.discard(instance)
            self.serve(account, deployment)
        except Exception as error:
            self.tell(account, deployment, instance, f"the test's machine: {error!r}")
            self.signal(account, deployment, instance, "FAILURE")
            raise
        line = "    1.0 s  service: the health service says SERVING"
        self.tell(account, deployment, instance, line)
        self.signal(account, deployment, instance, "SUCCESS")

    def take_over(self, account: Account, instance: str) -> None:
        """Stop the machine that has the chats, as one that claims their volume does."""
        if self.holder != instance and self.process is not None and self.process.poll() is None:
            account.client("ec2").stop_instances(InstanceIds=[self.holder])
        self.holder = instance

    def keep_certificate(self, account: Account, deployment: dict[str, Any]) -> None:
        """The first machine makes the certificate."""
        secrets = account.client("secretsmanager")
        kept = secrets.get_secret_value(SecretId=deployment["certificate"])["SecretString"]
        if "certificate" in json.loads(kept):
            return
        for old in [*self.folder.glob("*.crt"), *self.folder.glob("*.key")]:
            old.unlink()
        names = ["--name", "localhost", "--folder", str(self.folder)]
        server = str(PROGRAMS / "llavachat-server")
        subprocess.run([server, "certs", "self-signed", *names], check=True, capture_output=True)
        made = json.dumps({"certificate": next(self.folder.glob("*.crt")).read_text()})
        secrets.put_secret_value(SecretId=deployment["certificate"], SecretString=made)

    def unpack(self, account: Account, address: str) -> Path:
        """The code of the release in the deployment's bucket."""
        bucket, key = address.removeprefix("s3://").split("/")
        code = self.folder / "releases" / key.removesuffix(".zip")
        if not code.exists():
            release = code.with_suffix(".zip")
            release.parent.mkdir(exist_ok=True)
            account.client("s3").download_file(bucket, key, str(release))
            with zipfile.ZipFile(release) as archive:
                (wheel,) = (name for name in archive.namelist() if name.endswith(".whl"))
                archive.extract(wheel, code.with_suffix(".d"))
            zipfile.ZipFile(code.with_suffix(".d") / wheel).extractall(code)
        return code

    def serve(self, account: Account, deployment: dict[str, Any]) -> None:
        """Start the real server, and wait until it is ready."""
        secret = account.client("secretsmanager").get_secret_value(SecretId=deployment["api_key"])
        keys, ready = self.folder / "keys", self.folder / "ready"
        keys.write_text(f"client {hashlib.sha256(secret['SecretString'].encode()).hexdigest()}\n")
        ready.unlink(missing_ok=True)
        words = ["--listen", f"127.0.0.1:{self.port}", "--keys-file", keys, "--ready-file", ready]
        words += ["--tls-cert-file", next(self.folder.glob("*.crt"))]
        words += ["--tls-key-file", next(self.folder.glob("*.key"))]
        words += ["--state-folder", self.folder / "chats"]
        code = self.unpack(account, deployment["release"])
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(PROGRAMS / "python"), "-m", "llavachat_server", *map(str, words)],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(code)},
                stdout=log,
                stderr=log,
            )
        while not ready.exists():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.1)

    def tell(self, account: Account, deployment: dict[str, Any], instance: str, line: str) -> None:
        """A line of the first boot's log."""
        logs, group = account.client("logs"), deployment["install_log"]
        for make, names in (
            (logs.create_log_group, {"logGroupName": group}),
            (logs.create_log_stream, {"logGroupName": group, "logStreamName": instance}),
        ):
            try:
                make(**names)
            except logs.exceptions.ResourceAlreadyExistsException:
                continue
        event = {"timestamp": int(time.time() * 1000), "message": line}
        logs.put_log_events(logGroupName=group, logStreamName=instance, logEvents=[event])

    def signal(
        self, account: Account, deployment: dict[str, Any], instance: str, status: str
    ) -> None:
        """A machine's word to the stack that waits for it."""
        account.client("cloudformation").signal_resource(
            StackName=deployment["stack"],
            LogicalResourceId=deployment["resource"],
            UniqueId=instance,
            Status=status,
        )

    def stop(self, account: Account | None = None, instance: str = "") -> None:
        """A machine goes down; the service with it, if it has it."""
        if self.process is not None and instance in ("", self.holder):
            self.process.terminate()
            self.process.wait()
