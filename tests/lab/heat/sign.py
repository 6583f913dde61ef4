"""Prints a signed URL as it would be had it been signed at another time.

usage: sign.py URL METHOD TIME CREDENTIALS   CREDENTIALS: Keystone's answer to GET /v3/credentials
"""

import json
import sys
from urllib import parse

from keystoneclient.contrib.ec2 import utils

url, method, time, credentials = sys.argv[1:]
parts = parse.urlparse(url)
params = dict(parse.parse_qsl(parts.query))
del params["Signature"]
params["Timestamp"] = time
blobs = [json.loads(one["blob"]) for one in json.loads(credentials)["credentials"]]
secret = next(blob["secret"] for blob in blobs if blob["access"] == params["AWSAccessKeyId"])
request = {"host": parts.netloc.lower(), "verb": method, "path": parse.unquote(parts.path), "params": params}
params["Signature"] = utils.Ec2Signer(secret).generate(request)
print(parse.urlunparse(parts._replace(query=parse.urlencode(params))))
