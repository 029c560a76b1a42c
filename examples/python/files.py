#!/usr/bin/env python3
"""Lists and stats files of a Distribute cluster, with code generated from the .proto files alone."""

import argparse
import json
import pathlib
import sys
import tomllib

import grpc
from dfs.v1 import common_pb2, metadata_pb2, metadata_pb2_grpc

DEADLINE_SECONDS = 10
# Worth asking the next server: this one is down, starting or cut off.
NEXT_SERVER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Cluster:
    """The metadata servers of one dfsctl.toml; paths in it are relative to it."""

    def __init__(self, config: pathlib.Path):
        settings = tomllib.loads(config.read_text())
        base = config.parent
        key = (base / settings["api_key_file"]).read_text().strip()
        self.metadata = [("authorization", f"Bearer {key}")]
        tls = grpc.ssl_channel_credentials((base / settings["ca"]).read_bytes())
        self.stubs = [
            metadata_pb2_grpc.MetadataStub(grpc.secure_channel(address, tls)) for address in settings["metadata"]
        ]

    def call(self, method: str, request):
        """Asks one server after the other, until one answers."""
        for number, stub in enumerate(self.stubs, start=1):
            try:
                return getattr(stub, method)(request, metadata=self.metadata, timeout=DEADLINE_SECONDS)
            except grpc.RpcError as error:
                if error.code() not in NEXT_SERVER or number == len(self.stubs):
                    raise

    def ls(self, bucket: str, prefix: str):
        """Every file below a prefix. A page may be empty and still have a cursor."""
        cursor = ""
        while True:
            page = self.call("List", metadata_pb2.ListRequest(bucket=bucket, prefix=prefix, cursor=cursor))
            for entry in page.entries:
                yield entry.file
            cursor = page.next_cursor
            if not cursor:
                return

    def stat(self, path: str):
        file = metadata_pb2.FileSelector(path=path)
        return self.call("Stat", metadata_pb2.StatRequest(file=file))


def shown(info) -> dict:
    return {
        "path": info.path,
        "size": info.size,
        "version": info.version,
        "file_id": info.file_id.hex(),
        "chunks": info.chunks,
        "content_type": info.content_type,
        "user_metadata": dict(info.user_metadata),
    }


def cluster_code(error: grpc.RpcError) -> int | None:
    """The cluster's own error code, which is finer than gRPC's."""
    for name, value in error.trailing_metadata() or ():
        if name == "dfs-error-bin":
            return common_pb2.ErrorDetail.FromString(value).code
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=pathlib.Path, required=True, help="a dfsctl.toml")
    commands = parser.add_subparsers(dest="command", required=True)
    ls = commands.add_parser("ls", help="files below a prefix")
    ls.add_argument("bucket")
    ls.add_argument("prefix", nargs="?", default="")
    stat = commands.add_parser("stat", help="one file")
    stat.add_argument("path", help="/BUCKET/KEY")
    args = parser.parse_args()
    cluster = Cluster(args.config)
    try:
        files = cluster.ls(args.bucket, args.prefix) if args.command == "ls" else [cluster.stat(args.path)]
        for info in files:
            print(json.dumps(shown(info)))
    except grpc.RpcError as error:
        print(json.dumps({"error": error.details(), "code": cluster_code(error)}), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
