"""The command `sidecaml`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipc_server import __version__, config, logs
from ipc_server.abi import ABI_VERSION
from ipc_server.ask import Conversation
from ipc_server.bench import arguments as bench_arguments
from ipc_server.config_values import ConfigError
from ipc_server.decode import DecodeError, counted
from ipc_server.errors import SidecamlError
from ipc_server.export import ExportError
from ipc_server.export import arguments as export_arguments
from ipc_server.inspect import inspect_channel, list_channels
from ipc_server.listener import ListenError
from ipc_server.signature import signature_of, text_of

_VERSION = f"sidecaml {__version__}, ABI {ABI_VERSION}"
EXIT_FAILURE = 1
# EX_CONFIG of sysexits.h, so that a service manager does not restart into the same mistake.
EXIT_CONFIG = 78
# As a shell reports a command that SIGINT ended.
EXIT_INTERRUPTED = 130


class OutputError(Exception):
    """What a command has to say cannot be written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 0, 1 for a failure, 2 for wrong usage, 78 for a bad configuration."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        return _complain(error, EXIT_CONFIG)
    except (SidecamlError, ListenError, DecodeError, ExportError) as error:
        return _complain(error, EXIT_FAILURE)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes at exit.
        _forget_output()
        return EXIT_FAILURE
    except OutputError as error:
        _forget_output()
        return _complain(error, EXIT_FAILURE)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecaml", description="Runs PyTorch models beside another process."
    )
    parser.add_argument("--version", action="version", version=_VERSION)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve models until a signal ends it")
    _add_configuration(serve)
    serve.add_argument("--strict", action="store_true", help="end with code 1 when a model cannot be loaded")
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check-config", help="show every setting and where it comes from")
    _add_configuration(check)
    check.set_defaults(run=_check_config)
    models = commands.add_parser("models", help="list the models of a running daemon")
    _add_socket(models)
    models.set_defaults(run=_models)
    _add_describe(commands)
    export_arguments.add(commands, _export)
    _add_socket(bench_arguments.add(commands, _bench))
    inspect = commands.add_parser(
        "inspect", help="decode the shared memory of a channel, or list the channels"
    )
    _add_socket(inspect)
    inspect.add_argument(
        "channel", nargs="?", type=int, help="number of the channel; without it, all are listed"
    )
    inspect.set_defaults(run=_inspect)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def _add_describe(commands: Any) -> None:
    describe = commands.add_parser(
        "describe",
        help="show a model's inputs, outputs and dynamic dimensions",
        epilog="Ends with 1 when the signature is not known: the model still loads, or could not be loaded.",
    )
    which = describe.add_mutually_exclusive_group(required=True)
    which.add_argument("model", nargs="?", metavar="MODEL", help="a model of the running daemon")
    which.add_argument("--file", metavar="PATH", type=Path, help="a model's file, loaded without a daemon")
    describe.add_argument("--json", action="store_true", help="for programs")
    _add_socket(describe)
    describe.set_defaults(run=_describe)


def _add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings in TOML")
    parser.add_argument(
        "--model",
        metavar="NAME=PATH",
        action="append",
        default=[],
        help="serve the model in PATH as NAME; repeatable",
    )
    parser.add_argument("--log-level", metavar="LEVEL", help=f"one of {', '.join(config.LOG_LEVELS)}")
    _add_socket(parser)


def _add_socket(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help="the daemon's socket; default $SIDECAML_SOCKET, else $XDG_RUNTIME_DIR/sidecaml.sock, else "
        "/run/sidecaml/sidecaml.sock",
    )


def _load(options: argparse.Namespace) -> config.Config:
    return config.load(
        options.config, socket=options.socket, log_level=options.log_level, models=options.model
    )


def _serve(options: argparse.Namespace) -> int:
    # Imported here: the other commands need neither the extension nor an event loop.
    from ipc_server import supervisor  # noqa: PLC0415

    settings = _load(options)
    logs.setup(settings.log_level)
    return supervisor.run(settings, lambda: _load(options), strict=options.strict)


def _check_config(options: argparse.Namespace) -> int:
    _print("\n".join(_load(options).lines()))
    return 0


def _models(options: argparse.Namespace) -> int:
    with Conversation(config.client_socket(options.socket)) as conversation:
        models = conversation.pages("describe", "models", "name")
    _print("\n".join(map(_described, models)))
    return 0


def _described(model: dict[str, Any]) -> str:
    title = f"{model['name']}  {model['state']}  {model['engine']}"
    if model["state"] != "ready":
        return f"{title}\n  {model['problem']}" if model["problem"] else title
    title += f"  up to {counted(model['max_slots'], 'slot')}"
    if (instances := model.get("instances", 1)) > 1:
        title += f"  {model['served']} of {instances} instances served"
    signature = signature_of(model)
    return f"{title}\n  in   {text_of(signature.inputs)}\n  out  {text_of(signature.outputs)}"


def _describe(options: argparse.Namespace) -> int:
    # Imported here: the other commands need no client.
    from ipc_server import describe  # noqa: PLC0415

    if options.file:
        model = describe.in_file(options.file)
    else:
        model = describe.served(options.model, config.client_socket(options.socket))
    _print(describe.as_json(model) if options.json else describe.as_text(model))
    return 0 if describe.is_known(model) else EXIT_FAILURE


def _export(options: argparse.Namespace) -> int:
    # Imported here: it needs the extension, numpy and PyTorch.
    from ipc_server.export import command  # noqa: PLC0415

    # It takes its folder and its daemon along, whatever ends it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    _print(command.export(options))
    return 0


def _bench(options: argparse.Namespace) -> int:
    # Imported here: it needs the extension and numpy.
    from ipc_server.bench import command  # noqa: PLC0415

    return 0 if command.bench(options, _print) else EXIT_INTERRUPTED


def _inspect(options: argparse.Namespace) -> int:
    socket = config.client_socket(options.socket)
    _print(list_channels(socket) if options.channel is None else inspect_channel(socket, options.channel))
    return 0


def _version(_options: argparse.Namespace) -> int:
    _print(_VERSION)
    return 0


def _print(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def _forget_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: Exception, code: int) -> int:
    prefix = f"<{logs.priority(logging.ERROR)}>" if logs.to_journal() else ""
    sys.stderr.write(f"{prefix}sidecaml: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
