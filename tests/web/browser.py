"""A headless Chromium, steered over its pipe (Chrome DevTools Protocol)."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time


def find():
    """The path of a Chromium, or None."""
    names = ["chromium", "chromium-browser", "google-chrome"]
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One browser with one page. Errors of the page are kept in `problems`."""

    def __init__(self, path):
        self.home = tempfile.mkdtemp(prefix="gossipmonger-view-")
        theirs, self.to = os.pipe()
        self.back, ours = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 f"--user-data-dir={self.home}", "--remote-debugging-pipe", "about:blank"]

        def wire():
            # The numbers that the protocol wants; the two may stand in each other's way.
            a, b = os.dup(theirs), os.dup(ours)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen([path, *flags], preexec_fn=wire, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs)
        os.close(ours)
        self.begun, self.number, self.problems, self.answers, self.fulfil = b"", 0, [], {}, None
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.command(f"{domain}.enable")

    def command(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        number = self.number
        while number not in self.answers:
            self.receive()
        answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def receive(self):
        while b"\0" not in self.begun:
            part = os.read(self.back, 1 << 20)
            if not part:
                raise RuntimeError("the browser ended")
            self.begun += part
        line, _, self.begun = self.begun.partition(b"\0")
        message = json.loads(line)
        if "id" in message:
            self.answers[message["id"]] = message
            return
        method, params = message["method"], message["params"]
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Fetch.requestPaused" and self.fulfil:
            self.answer_for_agent(params)

    def answer_for_agent(self, params):
        body = self.fulfil(params["request"]["url"])
        self.number += 1
        if body is None:
            message = {"method": "Fetch.continueRequest", "params": {"requestId": params["requestId"]}}
        else:
            message = {"method": "Fetch.fulfillRequest", "params": {
                "requestId": params["requestId"], "responseCode": 200,
                "responseHeaders": [{"name": "Content-Type", "value": "application/json"}],
                "body": base64.b64encode(json.dumps(body).encode()).decode()}}
        os.write(self.to, json.dumps({"id": self.number, "sessionId": self.session, **message}).encode() + b"\0")

    def open(self, url):
        self.command("Page.navigate", url=url)

    def eval(self, code):
        """The value of an expression in the page; promises are awaited."""
        answer = self.command("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{code}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, what, code, patience=60):
        """Waits until an expression is true in the page, and returns its value."""
        deadline = time.monotonic() + patience
        value = None
        while time.monotonic() < deadline:
            try:
                value = self.eval(code)
            except RuntimeError as error:
                # The page is not there yet.
                value = str(error)[:200]
                time.sleep(0.1)
                continue
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"never happened: {what} (last: {value!r}); the page says: "
                             f"{self.eval('document.body.innerText')[:1500]}")

    def key(self, key, code=None, text=None):
        for kind in ["keyDown", "keyUp"]:
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=code or key,
                         windowsVirtualKeyCode={"Tab": 9, "Enter": 13}.get(key, 0), **extra)

    def size(self, width, height, dark):
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                     mobile=width < 500)
        self.command("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def shoot(self, path):
        shot = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)
        shutil.rmtree(self.home, ignore_errors=True)
