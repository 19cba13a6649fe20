"""An MQTT client made of paho for Python; driver_test.go says what it does.

usage: client.py MODE URL VERSION CLIENT-ID QOS TOPIC [CA-FILE]
"""

import sys
from urllib.parse import urlparse

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

mode, url, version, client_id, qos, topic = sys.argv[1:7]
url, version, qos = urlparse(url), int(version), int(qos)
websocket = url.scheme in ("ws", "wss")


def connect(keep):
    kind = {3: mqtt.MQTTv31, 4: mqtt.MQTTv311, 5: mqtt.MQTTv5}[version]
    options = {"client_id": client_id, "protocol": kind}
    options["transport"] = "websockets" if websocket else "tcp"
    if hasattr(mqtt, "CallbackAPIVersion"):  # paho 2 wants to know that this was written for paho 1
        options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
    if version != 5:
        options["clean_session"] = not keep
    client = mqtt.Client(**options)
    if websocket:
        client.ws_set_options(path=url.path)
    if url.scheme in ("tls", "wss"):
        client.tls_set(ca_certs=sys.argv[7])
    if mode == "will":
        client.will_set(topic, "gone", qos)
    client.on_connect = connected
    client.on_message = received
    client.on_subscribe = subscribed
    extra = {}
    if version == 5:
        extra["clean_start"] = not keep
        extra["properties"] = Properties(PacketTypes.CONNECT)
        extra["properties"].SessionExpiryInterval = 300 if keep else 0
    client.connect(url.hostname, url.port, 60, **extra)
    return client


def connected(client, _, flags, reason, *properties):
    if reason != 0:
        sys.exit(f"refused: {reason}")
    if mode in ("receive", "leave"):
        client.subscribe(topic, qos)
    elif mode == "return":
        print("session", flags["session present"], flush=True)
    elif mode == "will":
        print("ready", flush=True)


def subscribed(client, _, mid, granted, *properties):
    print("ready", flush=True)
    if mode == "leave":
        client.disconnect()


def received(client, _, message):
    print("message", int(message.retain), message.qos, message.payload.hex(), flush=True)
    if message.payload == b"end":
        client.disconnect()


client = connect(keep=mode in ("leave", "return"))
if mode in ("publish", "retain"):
    client.loop_start()
    sent = [client.publish(topic, line.rstrip(b"\n"), qos, retain=mode == "retain") for line in sys.stdin.buffer]
    for message in sent:
        message.wait_for_publish()
    client.disconnect()
    client.loop_stop()
else:
    client.loop_forever()
