"""A deployment's key and certificate, from Secrets Manager into a saved server."""

import hashlib
import json
import ssl
from collections.abc import Mapping
from dataclasses import replace

from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.stack import Deployment, read_certificate, read_secret
from llavachat.cli.profiles import Profile, find_key_file, read_profiles, write_key, write_profiles


def save_profile(account: Account, deployment: Deployment, address: str) -> str:
    """Save a deployment's server under the deployment's name, and make it the active one.

    Returns:
        The profile's name.

    Raises:
        Failure: it has no certificate yet, or nothing can be written.
    """
    name = deployment.name
    pin = compute_pin(read_certificate(account, deployment))
    key_file = write_key(name, read_secret(account, deployment, "ApiKey"))
    profiles = read_profiles()
    options = read_options(name, account.region)
    where = {"stack": name, "region": account.region}
    if options is not None:
        where["options"] = json.dumps(options)
    profiles.servers[name] = Profile(address, str(key_file), tls_pin=pin, deployment=where)
    profiles.active = name
    write_profiles(profiles)
    return name


def save_options(name: str, region: str, address: str, options: Mapping[str, str]) -> None:
    """Keep what a deployment was made with, for the next update; nobody is asked for it.

    Args:
        address: where its server will be, if it is not saved yet; `save_profile` saves the rest.

    Raises:
        Failure: nothing can be written.
    """
    profiles = read_profiles()
    known = profiles.servers.get(name)
    if known is None or known.deployment.get("region") != region:
        known = Profile(address)
    where = {"stack": name, "region": region, "options": json.dumps(dict(options))}
    profiles.servers[name] = replace(known, deployment=where)
    write_profiles(profiles)


def read_options(name: str, region: str) -> dict[str, str] | None:
    """What a deployment was made with from here. None: it was not, or not in this region."""
    profile = read_profiles().servers.get(name)
    if profile is None or profile.deployment.get("region") != region:
        return None
    kept = profile.deployment.get("options")
    return None if kept is None else dict(json.loads(kept))


def forget_profile(name: str, region: str) -> None:
    """Remove what `save_profile` left of a deployment that is gone."""
    profiles = read_profiles()
    profile = profiles.servers.get(name)
    if profile is not None and profile.deployment.get("region") == region:
        del profiles.servers[name]
        profiles.active = "" if profiles.active == name else profiles.active
        write_profiles(profiles)
        find_key_file(name).unlink(missing_ok=True)


def compute_pin(certificate: str) -> str:
    """The pin of a PEM: SHA-256 of its DER."""
    return "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()
