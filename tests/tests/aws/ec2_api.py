"""An EC2 API on the loopback interface: moto, with what it lacks for this test.

moto answers SendSSHPublicKey but forgets the key. Here keys are remembered for the 60 seconds that EC2 Instance Connect
keeps them, and a target's AuthorizedKeysCommand asks for them, as the one on a real instance asks its metadata service.

    ec2_api.py serve                        serves; prints the port
    ec2_api.py launch PORT ADDRESS          runs an instance that has this private address; prints its id
    ec2_api.py stop PORT INSTANCE           stops one
    ec2_api.py keys PORT USER               prints the keys that were pushed for a user and still count
    ec2_api.py deny PORT                    from now on nothing is allowed
"""

import io
import json
import sys
import time
import urllib.parse
import urllib.request

KEY_LIFETIME_SECONDS = 60
REGION = "eu-central-1"
DENIED = (
    b"<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized</Message></Error>"
    b"</Errors><RequestID>0</RequestID></Response>"
)


class Front:
    """Remembers pushed keys on the way to moto."""

    def __init__(self, moto):
        self.moto, self.keys, self.denies = moto, [], False

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/_weir/keys":
            user = urllib.parse.parse_qs(environ["QUERY_STRING"])["user"][0]
            since = time.monotonic() - KEY_LIFETIME_SECONDS
            keys = [key for at, of, key in self.keys if of == user and at > since]
            return self.answer(start_response, "200 OK", "\n".join(keys).encode())
        if path == "/_weir/deny":
            self.denies = True
            return self.answer(start_response, "200 OK", b"")
        if self.denies:
            return self.answer(start_response, "403 Forbidden", DENIED)
        if environ.get("HTTP_X_AMZ_TARGET", "").endswith(".SendSSHPublicKey"):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
            pushed = json.loads(body)
            self.keys.append((time.monotonic(), pushed["InstanceOSUser"], pushed["SSHPublicKey"]))
        return self.moto(environ, start_response)

    @staticmethod
    def answer(start_response, status, body):
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]


def serve():
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, Front(DomainDispatcherApplication(create_backend_app)), threaded=True)
    print(f"port={server.port}", flush=True)
    server.serve_forever()


def ec2(port):
    import boto3

    return boto3.client(
        "ec2",
        region_name=REGION,
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def launch(port, address):
    client = ec2(port)
    image = client.describe_images()["Images"][0]["ImageId"]
    launched = client.run_instances(ImageId=image, MinCount=1, MaxCount=1, PrivateIpAddress=address)
    print(launched["Instances"][0]["InstanceId"])


def stop(port, instance):
    ec2(port).stop_instances(InstanceIds=[instance])


def ask(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_weir/{path}", timeout=10) as answer:
        print(answer.read().decode())


if __name__ == "__main__":
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "keys":
        ask(arguments[0], f"keys?user={urllib.parse.quote(arguments[1])}")
    elif command == "deny":
        ask(arguments[0], "deny")
    else:
        {"serve": serve, "launch": launch, "stop": stop}[command](*arguments)
