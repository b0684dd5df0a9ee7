"""AWS on the loopback interface: moto, with S3, STS and KMS.

    s3_api.py serve                               serves; prints the port
    s3_api.py serve PORT                          the same on a port of one's choice
    s3_api.py bucket PORT NAME [lock|public]...   makes a bucket with versions, and with Object Lock or for everybody
    s3_api.py show PORT BUCKET KEY                prints what is known of an object, as JSON
    s3_api.py list PORT BUCKET                    prints the keys, one a line
    s3_api.py copy PORT BUCKET PREFIX DIRECTORY   copies the objects below a prefix into a directory
"""

import json
import pathlib
import sys

REGION = "eu-central-1"


def serve(port=0):
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", int(port), DomainDispatcherApplication(create_backend_app), threaded=True)
    print(f"port={server.port}", flush=True)
    server.serve_forever()


def s3(port):
    import boto3

    return boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def bucket(port, name, *kinds):
    client = s3(port)
    client.create_bucket(
        Bucket=name,
        CreateBucketConfiguration={"LocationConstraint": REGION},
        ObjectLockEnabledForBucket="lock" in kinds,
    )
    if "plain" not in kinds:
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def show(port, name, key):
    client = s3(port)
    head = client.head_object(Bucket=name, Key=key, ChecksumMode="ENABLED")
    tags = client.get_object_tagging(Bucket=name, Key=key)["TagSet"]
    print(
        json.dumps(
            {
                "encryption": head.get("ServerSideEncryption"),
                "key": head.get("SSEKMSKeyId"),
                "version": head.get("VersionId"),
                "lock": head.get("ObjectLockMode"),
                "until": str(head.get("ObjectLockRetainUntilDate")),
                "tags": {tag["Key"]: tag["Value"] for tag in tags},
            }
        )
    )


def keys(client, name, prefix=""):
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix):
        for item in page.get("Contents", []):
            yield item["Key"]


def listing(port, name):
    print("\n".join(keys(s3(port), name)))


def copy(port, name, prefix, directory):
    client = s3(port)
    for key in keys(client, name, prefix + "/"):
        path = pathlib.Path(directory, key.removeprefix(prefix + "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=name, Key=key)["Body"].read())


if __name__ == "__main__":
    command, arguments = sys.argv[1], sys.argv[2:]
    {"serve": serve, "bucket": bucket, "show": show, "list": listing, "copy": copy}[command](*arguments)
