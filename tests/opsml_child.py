"""The genuine OpsML server and its genuine client, in a process of their own. Run by opsml_server.py, never imported.

Why a process of its own: SQLite's locks belong to a process. Whoever opens the server's file in the server's process
and closes it again takes the server's locks away, and the database is corrupted.

Commands come on stdin, answers go to stdout, one JSON object a line. What the server prints goes to stderr.
"""

import json
import os
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path

PORT = 3000  # fixed: OpsML's test server probes for itself at this port alone
BASE = f"http://127.0.0.1:{PORT}"


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("0.0.0.0", PORT))
    except OSError as error:
        return answer(skip=f"port {PORT} is taken ({error.strerror})")
    try:
        from opsml.mock import OpsmlTestServer
    except ImportError as error:
        return answer(skip=f"opsml is not installed here ({error})")
    server = OpsmlTestServer(False)
    server.start_server()
    (database,) = Path.cwd().glob("*/opsml.db")
    answer(db_path=str(database), base_url=BASE)
    tasks = Tasks()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(result=getattr(tasks, request.pop("do"))(**request))
        except BaseException as error:  # what went wrong is the test's to say
            answer(error=repr(error))
    server.stop_server()
    return None


class Tasks:
    """What the server is made to do."""

    def work(self, space):
        """Cards of several kinds registered, listed, updated and deleted; an experiment with an artifact."""
        import numpy as np
        from opsml import CardRegistry, DataCard, NumpyData, Prompt, PromptCard, RegistryType, start_experiment
        from opsml.card import Card, ServiceCard

        prompts, data = CardRegistry(RegistryType.Prompt), CardRegistry(RegistryType.Data)

        def prompt(name):
            return PromptCard(
                prompt=Prompt(model="gpt-4o", provider="openai", message="Grüße, ${name} 👋"), space=space, name=name
            )

        greeting = prompt("greeting")
        prompts.register_card(greeting)
        numbers = DataCard(interface=NumpyData(data=np.arange(6)), space=space, name="numbers", tags=["first"])
        data.register_card(numbers)
        prompts.list_cards(space=space)
        numbers.tags = ["second"]
        data.update_card(numbers)
        note = Path(f"note-{space}.txt")
        note.write_text("an artifact\n")
        with start_experiment(space=space, name="trial") as experiment:
            experiment.log_metric("loss", 0.5)
            experiment.log_parameter("rate", 0.1)
            experiment.log_artifact(note)
            experiment.register_card(prompt("inner"))
        service = ServiceCard(space=space, name="service", cards=[Card(alias="greeting", card=greeting)])
        CardRegistry(RegistryType.Service).register_card(service)
        prompts.delete_card(greeting)
        return len(CardRegistry(RegistryType.Experiment).list_cards(space=space))

    def flood(self, clients, requests):
        """`clients` threads of plain HTTP, each with a token of its own: the answers by status."""
        statuses = []
        lock = threading.Lock()

        def client(number):
            token = login()
            for index in range(requests):
                status = get(f"/opsml/api/card/list?registry_type=Prompt&space=c{number}-{index}", token)
                with lock:
                    statuses.append(status)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {str(status): statuses.count(status) for status in sorted(set(statuses))}

    def register(self, clients, cards):
        """`clients` threads registering cards: writes of the server's own. The errors its client saw."""
        from opsml import CardRegistry, Prompt, PromptCard, RegistryType

        errors = []

        def client(number):
            registry = CardRegistry(RegistryType.Prompt)
            for index in range(cards):
                message = Prompt(model="gpt-4o", provider="openai", message="hello")
                try:
                    registry.register_card(PromptCard(prompt=message, space=f"r{number}", name=f"card{index}"))
                except BaseException as error:
                    errors.append(repr(error))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors

    def list_cards(self, headers):
        """One request over plain HTTP, with a token. When it was answered, ns since the epoch."""
        status = get("/opsml/api/card/list?registry_type=Prompt", login(), headers)
        assert status == 200, status
        return time.time_ns()

    def timed_list(self, requests):
        """Seconds that each of so many requests took, one after the other."""
        token = login()
        taken = []
        for _ in range(requests):
            begun = time.perf_counter()
            get("/opsml/api/card/list?registry_type=Prompt", token)
            taken.append(time.perf_counter() - begun)
        return taken


def login():
    headers = {"username": "admin", "password": "admin", "User-Agent": "plain-http/1"}
    request = urllib.request.Request(f"{BASE}/opsml/api/auth/login", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["token"]


def get(path, token, headers=None):
    headers = {"Authorization": f"Bearer {token}", "User-Agent": "plain-http/1", **(headers or {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(BASE + path, headers=headers), timeout=30) as response:
            response.read()
            return response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


if __name__ == "__main__":
    main()
