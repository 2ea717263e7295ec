"""What an observer can tell about a certificate, as one line of text.

Keys, serial numbers and times differ between any two certificates; the kind of key, the signature, the names, the extensions
and how long it is valid must not. Read with the `openssl` program, which the harness needs anyway.
"""

import datetime
import re
import subprocess

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.S)
DATE = "%b %d %H:%M:%S %Y %Z"


def describe(pem, seen_at=None):
    """`<certificate v3; ...>` of a PEM text; `seen_at` (Unix time) adds how long ago it became valid, to 10 minutes."""
    run = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-nameopt", "RFC2253"],
        input=pem, capture_output=True, text=True, timeout=30, check=False,
    )
    if run.returncode != 0:
        return "<certificate that openssl can not read>"
    return from_text(run.stdout, seen_at)


def from_text(text, seen_at=None):
    """The same, of what `openssl x509 -text` printed."""
    def field(pattern):
        match = re.search(pattern, text)
        return match.group(1).strip() if match else "?"

    start = datetime.datetime.strptime(field(r"Not Before\s*: (.*)"), DATE)
    end = datetime.datetime.strptime(field(r"Not After\s*: (.*)"), DATE)
    facts = [
        "v" + field(r"Version: (\d+)"),
        field(r"NIST CURVE: (.*)"),
        field(r"Signature Algorithm: (.*)"),
        "subject " + ",".join(re.findall(r"(\w+)=", field(r"Subject: (.*)"))),
        "self-issued" if field(r"Issuer: (.*)") == field(r"Subject: (.*)") else "issued by another",
    ]
    if seen_at is not None:
        age = seen_at - start.replace(tzinfo=datetime.timezone.utc).timestamp()
        facts.append(f"valid since {round(age / 600) * 10} min")
    facts.append(f"valid for {round((end - start).total_seconds() / 3600)} h")
    facts += [f"{name} {value}" for name, value in extensions(text)]
    return "<certificate " + "; ".join(facts) + ">"


def extensions(text):
    """`[(name, value)]` in the certificate's order; key identifiers are numbers made from the key, so only their name counts."""
    block = re.search(r"X509v3 extensions:\n(.*?)(?=\n    Signature Algorithm|\Z)", text, re.S)
    if not block:
        return []
    found = []
    for name, value in re.findall(r"^ {12}(\S.*?):(.*\n {16}.*)$", block.group(1), re.M):
        value = " ".join(value.split())
        found.append((name, "(of the key)" if "Key Identifier" in name else value))
    return found
