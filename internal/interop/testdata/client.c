/* An MQTT client made of paho for C; driver_test.go says what it does.
 *
 * usage: client MODE URL VERSION CLIENT-ID QOS TOPIC [CA-FILE]
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <MQTTClient.h>

static const char *mode, *topic, *ca;
static int version, qos;
static MQTTClient client;

static int is(const char *name) { return strcmp(mode, name) == 0; }

static void must(int code, const char *what) {
	if (code != MQTTCLIENT_SUCCESS) {
		printf("failed: %s: %d\n", what, code);
		exit(1);
	}
}

static MQTTProperties expiry(int seconds) {
	MQTTProperties list = MQTTProperties_initializer;
	MQTTProperty p = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, .value.integer4 = seconds};
	must(MQTTProperties_add(&list, &p), "session expiry");
	return list;
}

/* connect_now returns whether the broker kept a session, or -1: in MQTT 5 this
 * library does not tell, whichever the broker. */
static int connect_now(int keep) {
	MQTTClient_connectOptions four = MQTTClient_connectOptions_initializer;
	MQTTClient_connectOptions five = MQTTClient_connectOptions_initializer5;
	MQTTClient_connectOptions o = version == 5 ? five : four;
	MQTTClient_willOptions will = MQTTClient_willOptions_initializer;
	MQTTClient_SSLOptions ssl = MQTTClient_SSLOptions_initializer;
	o.MQTTVersion = version;
	o.reliable = 0; /* several messages under way */
	if (version == 5)
		o.cleanstart = !keep;
	else
		o.cleansession = !keep;
	will.topicName = topic;
	will.message = "gone";
	will.qos = qos;
	if (is("will"))
		o.will = &will;
	ssl.trustStore = ca;
	ssl.verify = 1;
	if (ca)
		o.ssl = &ssl;
	if (version != 5) {
		must(MQTTClient_connect(client, &o), "connect");
		return o.returned.sessionPresent;
	}
	MQTTProperties p = expiry(keep ? 300 : 0);
	MQTTResponse r = MQTTClient_connect5(client, &o, &p, NULL);
	must(r.reasonCode, "connect");
	MQTTProperties_free(&p);
	MQTTResponse_free(r);
	return -1;
}

static void subscribe(void) {
	int granted;
	if (version == 5) {
		MQTTResponse r = MQTTClient_subscribe5(client, topic, qos, NULL, NULL);
		granted = r.reasonCode;
		MQTTResponse_free(r);
		must(granted == qos ? 0 : granted, "subscribe");
	} else {
		must(MQTTClient_subscribe(client, topic, qos), "subscribe");
	}
	puts("ready");
}

static void publish(void) {
	MQTTClient_deliveryToken sent[100];
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	int n = 0;
	for (; n < 100 && (length = getline(&line, &room, stdin)) > 0; n++) {
		MQTTClient_message m = MQTTClient_message_initializer;
		m.payload = line;
		m.payloadlen = length - 1;
		m.qos = qos;
		m.retained = is("retain");
		if (version == 5) {
			MQTTResponse r = MQTTClient_publishMessage5(client, topic, &m, &sent[n]);
			must(r.reasonCode, "publish");
			MQTTResponse_free(r);
		} else {
			must(MQTTClient_publishMessage(client, topic, &m, &sent[n]), "publish");
		}
	}
	for (int i = 0; i < n; i++)
		must(MQTTClient_waitForCompletion(client, sent[i], 5000), "acknowledgement");
	free(line);
}

static void receive(void) {
	for (int end = 0; !end;) {
		char *name;
		int length;
		MQTTClient_message *m = NULL;
		int code = MQTTClient_receive(client, &name, &length, &m, 5000);
		if (m == NULL)
			must(code ? code : MQTTCLIENT_FAILURE, "receive");
		printf("message %d %d ", m->retained, m->qos);
		for (int i = 0; i < m->payloadlen; i++)
			printf("%02x", ((unsigned char *)m->payload)[i]);
		puts("");
		end = m->payloadlen == 3 && memcmp(m->payload, "end", 3) == 0;
		MQTTClient_freeMessage(&m);
		MQTTClient_free(name);
	}
}

int main(int argc, char **argv) {
	if (argc < 7)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	mode = argv[1];
	version = atoi(argv[3]);
	qos = atoi(argv[5]);
	topic = argv[6];
	ca = argv[7]; /* NULL if there is none */
	MQTTClient_createOptions o = MQTTClient_createOptions_initializer;
	o.MQTTVersion = version;
	char *url = argv[2]; /* this library calls tls:// ssl:// */
	if (strncmp(url, "tls:", 4) == 0)
		memcpy(url, "ssl:", 4);
	must(MQTTClient_createWithOptions(&client, url, argv[4], MQTTCLIENT_PERSISTENCE_NONE, NULL, &o), "create");
	int session = connect_now(is("leave") || is("return"));
	if (is("publish") || is("retain"))
		publish();
	if (is("receive") || is("leave"))
		subscribe();
	if (is("return") && session >= 0)
		printf("session %d\n", session);
	if (is("receive") || is("return"))
		receive();
	if (is("will")) {
		puts("ready");
		pause();
	}
	if (version == 5)
		must(MQTTClient_disconnect5(client, 1000, MQTTREASONCODE_SUCCESS, NULL), "disconnect");
	else
		must(MQTTClient_disconnect(client, 1000), "disconnect");
	MQTTClient_destroy(&client);
	return 0;
}
