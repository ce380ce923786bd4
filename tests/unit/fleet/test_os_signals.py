import os
import signal
import subprocess
import sys
import threading

from worker.fleet.os_signals import handle_signals

PATIENCE = 40.0
#: Logs without a pause, and obeys every signal by another log line.
LOGGING = """
import signal
import structlog
from worker.fleet.os_signals import handle_signals
from worker.runtime import configure_logs

configure_logs("INFO", "json")
log = structlog.get_logger()
told = 0
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as it is again when the hearing ends

def tell(number):
    global told
    told += 1
    log.info("told", signal=number.name, count=told)

with handle_signals(tell):
    log.info("hearing")
    while told < 200:
        log.info("line", text="x" * 200)
log.info("left")
"""


def test_signals_in_the_middle_of_log_lines_block_nothing():
    child = subprocess.Popen([sys.executable, "-c", LOGGING], stderr=subprocess.PIPE, text=True)
    killer = threading.Timer(PATIENCE, child.kill)
    killer.start()
    try:
        lines = iter(child.stderr.readline, "")
        assert '"hearing"' in next(lines)
        for line in lines:
            # The next one only after the last was heard: those of one kind that wait are one to the kernel.
            if '"told"' in line or '"line"' in line:
                child.send_signal(signal.SIGTERM)
        code = child.wait(PATIENCE)
    finally:
        killer.cancel()
        child.kill()
        child.wait(PATIENCE)
        child.stderr.close()

    assert code == 0


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    heard = []

    with handle_signals(heard.append):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    assert heard == [signal.SIGTERM, signal.SIGINT]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_signal_of_another_kind_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append("usr1"))
    try:
        with handle_signals(heard.append):
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert heard == ["usr1"]
