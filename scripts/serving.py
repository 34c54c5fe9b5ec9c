"""What the checks of `puna serve` share: a server on a port of its own, and programs of the Python index."""
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

# A debug build on a busy machine takes seconds.
PATIENCE_S = 60


class Server:
    """`puna serve` with what it says in the file `log`; made when it is ready."""

    def __init__(self, puna, model, *flags, log, port=0):
        log = pathlib.Path(log)
        command = [puna, "serve", "-m", model, "--port", port, *flags]
        with log.open("wb") as file:
            self.process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=subprocess.STDOUT)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self.process.poll() is None:
            time.sleep(0.02)
            found = re.search(r"^address\s+(http://([^:/]+):(\d+))/v1$", log.read_text(), re.MULTILINE)
            if found is None:
                continue
            self.url, self.host, self.port = found[1], found[2], int(found[3])
            try:
                urllib.request.urlopen(f"{self.url}/health/ready", timeout=5).close()
                return
            except OSError:
                pass
        self.process.kill()
        sys.exit(f"the server did not start:\n{log.read_text()[-2000:]}")

    def end(self):
        """Ends it as a supervisor does; its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE_S)

    def kill(self):
        """Ends it at once."""
        self.process.kill()
        self.process.wait()


def fetched(folder, program, *needs):
    """`program` of an environment in `folder` that has what it needs; None where the Python index does not answer."""
    venv = folder / "venv"
    try:
        if not (venv / "bin" / program).exists():
            folder.mkdir(parents=True, exist_ok=True)
            for command in [[sys.executable, "-m", "venv", venv], [venv / "bin/python", "-m", "pip", "install", "-q", *needs]]:
                subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        return venv / "bin" / program
    except subprocess.CalledProcessError:
        return None
