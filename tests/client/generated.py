"""The client that gRPC generates from `proto/`, made anew for each run."""

import pathlib
import sys

import grpc_tools
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]


def generate(into):
    """The same command that README shows, as a call. Answers with the messages and the services."""
    into = pathlib.Path(into) / "generated"
    into.mkdir()
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    proto = ROOT / "proto"
    arguments = [f"-I{proto}", f"-I{include}", f"--python_out={into}", f"--grpc_python_out={into}"]
    assert protoc.main(["protoc", *arguments, str(proto / "yardarm/v1/evaluation.proto")]) == 0
    sys.path.insert(0, str(into))
    from yardarm.v1 import evaluation_pb2, evaluation_pb2_grpc

    return evaluation_pb2, evaluation_pb2_grpc
