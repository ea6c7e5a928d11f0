"""The directory that a binary under test runs in, made from flagd's testbed: flags, configurations, a certificate.

As the testbed's image has it: `rawflags/` (one file a topic), `flags/allFlags.json` (all of them but the selectors' as one document),
`configs/NAME.json` and `ssl/`.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

CHANGING = "changing-flag"


class Stand:
    def __init__(self, testbed, directory, without=None):
        """`without`: the key of a flag to take out."""
        testbed, self.directory = pathlib.Path(testbed), pathlib.Path(directory)
        self.raw, self.combined = self.directory / "rawflags", self.directory / "flags" / "allFlags.json"
        for part in ("rawflags", "flags", "configs", "ssl"):
            (self.directory / part).mkdir(parents=True)
        for file in sorted((testbed / "flags").glob("*.json")):
            document = json.loads(file.read_text())
            document["flags"].pop(without, None)
            replace(self.raw / file.name, document)
        self.authority = self.directory / "ssl" / "custom-root-cert.crt"
        self._certificate(testbed / "ssl")
        self._configurations(testbed / "launchpad" / "configs")
        self.combine()

    def _certificate(self, ssl):
        """A key and a certificate of `localhost`, signed by the testbed's own authority: clients get that authority's certificate."""
        shutil.copyfile(ssl / "custom-root-cert.crt", self.authority)
        key, request, certificate, names = (self.directory / "ssl" / name for name in ("server-key.pem", "server.csr", "server-cert.pem", "names"))
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        sign = ["-CA", ssl / "custom-root-cert.crt", "-CAkey", ssl / "custom-ca.key", "-set_serial", "1", "-days", "2", "-extfile", names]
        for command in (
            ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key],
            ["req", "-new", "-key", key, "-subj", "/CN=localhost", "-out", request],
            ["x509", "-req", "-sha256", "-in", request, "-out", certificate, *sign],
        ):
            done = subprocess.run(["openssl", *map(str, command)], capture_output=True, text=True)
            assert done.returncode == 0, f"openssl {command[0]} ended with {done.returncode}: {done.stderr}"

    def _configurations(self, configs):
        """The testbed's, with paths of the image replaced by ours, and `socket`: the default one over Unix sockets."""
        for file in configs.glob("*.json"):
            configuration = json.loads(file.read_text())
            for setting in ("server-cert-path", "server-key-path"):
                if setting in configuration:
                    configuration[setting] = str(self.directory / configuration[setting].lstrip("/"))
            self._configuration(file.stem, configuration)
            if file.stem == "default":
                sockets = {"socket-path": str(self.socket("evaluation")), "sync-socket-path": str(self.socket("sync"))}
                self._configuration("socket", {**configuration, **sockets})

    def _configuration(self, name, configuration):
        (self.directory / "configs" / f"{name}.json").write_text(json.dumps(configuration, indent=2))

    def has(self, configuration):
        return (self.directory / "configs" / f"{configuration}.json").is_file()

    def socket(self, service):
        return self.directory / f"{service}.sock"

    def combine(self):
        """Every raw file but the selectors' into one document, which appears at once and whole."""
        combined = {}
        for file in sorted(self.raw.glob("*.json")):
            if not file.name.startswith("selector-"):
                combined = merged(combined, json.loads(file.read_text()))
        replace(self.combined, combined)

    def forget(self):
        self.combined.unlink(missing_ok=True)

    def change(self):
        """Moves the default of the changing flag from foo to bar or back, and says which it is now."""
        file = self.raw / f"{CHANGING}.json"
        document = json.loads(file.read_text())
        flag = document["flags"][CHANGING]
        flag["defaultVariant"] = "bar" if flag["defaultVariant"] == "foo" else "foo"
        replace(file, document)
        self.combine()
        return flag["defaultVariant"]


def merged(into, more):
    """Objects are merged at every depth; of anything else the later one counts."""
    both = dict(into)
    for key, value in more.items():
        deeper = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if deeper else value
    return both


def replace(file, document):
    """A reader sees the old file or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".writing-")
    with os.fdopen(handle, "w") as writing:
        json.dump(document, writing, indent=2)
    os.chmod(name, 0o644)
    os.replace(name, file)
