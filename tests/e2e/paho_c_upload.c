/*
 * Uploads one file with Paho C's synchronous client, as EMQX's C demo does, in MQTT 3.1.1 or 5.
 *
 *   paho_c_upload tcp://HOST:PORT CLIENTID FILEID FILE NAME 4|5
 *
 * Exit status 0 when every publish was acknowledged, in MQTT 5 each with reason code 0.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <MQTTClient.h>

enum { SEGMENT_BYTES = 16 * 1024, TIMEOUT_MS = 20000 };

static void fail(const char *what, int code)
{
	fprintf(stderr, "paho_c_upload: %s: %d\n", what, code);
	exit(1);
}

/* Publishes at QoS 1 and waits for the acknowledgement. */
static void publish(MQTTClient client, int version, const char *topic, const void *payload, int bytes)
{
	MQTTClient_deliveryToken token;
	int rc;

	if (version == MQTTVERSION_5) {
		MQTTResponse response = MQTTClient_publish5(client, topic, bytes, payload, 1, 0, NULL, &token);
		rc = response.reasonCode;
		MQTTResponse_free(response);
	} else {
		rc = MQTTClient_publish(client, topic, bytes, payload, 1, 0, &token);
	}
	if (rc != MQTTCLIENT_SUCCESS)
		fail(topic, rc);
	rc = MQTTClient_waitForCompletion(client, token, TIMEOUT_MS);
	if (rc != MQTTCLIENT_SUCCESS)
		fail(topic, rc);
}

static void connect_to(MQTTClient client, int version)
{
	if (version == MQTTVERSION_5) {
		MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer5;
		options.cleanstart = 1;
		MQTTResponse response = MQTTClient_connect5(client, &options, NULL, NULL);
		if (response.reasonCode != MQTTREASONCODE_SUCCESS)
			fail("connect", response.reasonCode);
		MQTTResponse_free(response);
	} else {
		MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
		options.cleansession = 1;
		options.MQTTVersion = version;
		int rc = MQTTClient_connect(client, &options);
		if (rc != MQTTCLIENT_SUCCESS)
			fail("connect", rc);
	}
}

static void upload(MQTTClient client, int version, const char *fileid, FILE *file, const char *name)
{
	static char segment[SEGMENT_BYTES];
	char topic[512], meta[512];
	long offset = 0;
	size_t bytes;

	snprintf(topic, sizeof(topic), "$file/%s/init", fileid);
	int length = snprintf(meta, sizeof(meta), "{\"name\": \"%s\"}", name);
	publish(client, version, topic, meta, length);
	while ((bytes = fread(segment, 1, sizeof(segment), file)) > 0) {
		snprintf(topic, sizeof(topic), "$file/%s/%ld", fileid, offset);
		publish(client, version, topic, segment, (int)bytes);
		offset += (long)bytes;
	}
	snprintf(topic, sizeof(topic), "$file/%s/fin/%ld", fileid, offset);
	publish(client, version, topic, "", 0);
}

int main(int argc, char **argv)
{
	if (argc != 7)
		fail("arguments", argc);
	int version = atoi(argv[6]);
	MQTTClient_createOptions options = MQTTClient_createOptions_initializer;
	options.MQTTVersion = version;
	MQTTClient client;
	int rc = MQTTClient_createWithOptions(&client, argv[1], argv[2], MQTTCLIENT_PERSISTENCE_NONE, NULL,
		&options);
	if (rc != MQTTCLIENT_SUCCESS)
		fail("create", rc);
	FILE *file = fopen(argv[4], "rb");
	if (!file)
		fail("fopen", 0);
	connect_to(client, version);
	upload(client, version, argv[3], file, argv[5]);
	fclose(file);
	if (version == MQTTVERSION_5)
		rc = MQTTClient_disconnect5(client, 1000, MQTTREASONCODE_SUCCESS, NULL);
	else
		rc = MQTTClient_disconnect(client, 1000);
	if (rc != MQTTCLIENT_SUCCESS)
		fail("disconnect", rc);
	MQTTClient_destroy(&client);
	return 0;
}
