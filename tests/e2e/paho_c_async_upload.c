/*
 * Uploads one file with Paho C's asynchronous client: every PUBLISH is queued at once, the library keeps as
 * many unacknowledged as it may.
 *
 *   paho_c_async_upload tcp://HOST:PORT CLIENTID FILEID FILE NAME 4|5
 *
 * Exit status 0 when all succeeded, in MQTT 5 each with reason code 0.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <MQTTAsync.h>

enum { SEGMENT_BYTES = 8 * 1024, WAIT_S = 30 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int acknowledged, failed, connected;
static int version;

static void fail(const char *what, int code)
{
	fprintf(stderr, "paho_c_async_upload: %s: %d\n", what, code);
	exit(1);
}

static void note(int *counter)
{
	pthread_mutex_lock(&lock);
	++*counter;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
}

static void on_connected(void *context, MQTTAsync_successData *data)
{
	note(&connected);
}

static void on_connected5(void *context, MQTTAsync_successData5 *data)
{
	note(&connected);
}

static void on_success(void *context, MQTTAsync_successData *data)
{
	note(&acknowledged);
}

static void on_success5(void *context, MQTTAsync_successData5 *data)
{
	note(data->reasonCode == MQTTREASONCODE_SUCCESS ? &acknowledged : &failed);
}

static void on_failure(void *context, MQTTAsync_failureData *data)
{
	note(&failed);
}

static void on_failure5(void *context, MQTTAsync_failureData5 *data)
{
	fprintf(stderr, "refused with 0x%02x\n", data ? data->reasonCode : 0);
	note(&failed);
}

static void wait_for(const int *counter, int value)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&lock);
	while (*counter < value && failed == 0)
		if (pthread_cond_timedwait(&changed, &lock, &until) != 0)
			fail("nothing came within the time", *counter);
	pthread_mutex_unlock(&lock);
	if (failed)
		fail("refused", failed);
}

static void publish(MQTTAsync client, const char *topic, const void *payload, int bytes)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;

	if (version == MQTTVERSION_5) {
		options.onSuccess5 = on_success5;
		options.onFailure5 = on_failure5;
	} else {
		options.onSuccess = on_success;
		options.onFailure = on_failure;
	}
	int rc = MQTTAsync_send(client, topic, bytes, payload, 1, 0, &options);
	if (rc != MQTTASYNC_SUCCESS)
		fail(topic, rc);
}

static void connect_to(MQTTAsync client)
{
	MQTTAsync_connectOptions v3 = MQTTAsync_connectOptions_initializer;
	MQTTAsync_connectOptions v5 = MQTTAsync_connectOptions_initializer5;
	MQTTAsync_connectOptions *options = version == MQTTVERSION_5 ? &v5 : &v3;

	v3.MQTTVersion = version;
	v3.cleansession = 1;
	v3.onSuccess = on_connected;
	v3.onFailure = on_failure;
	v5.cleanstart = 1;
	v5.onSuccess5 = on_connected5;
	v5.onFailure5 = on_failure5;
	options->maxInflight = 200;
	int rc = MQTTAsync_connect(client, options);
	if (rc != MQTTASYNC_SUCCESS)
		fail("connect", rc);
	wait_for(&connected, 1);
}

static void upload(MQTTAsync client, const char *fileid, FILE *file, const char *name)
{
	static char segment[SEGMENT_BYTES];
	char topic[512], meta[512];
	long offset = 0;
	int sent = 1;
	size_t bytes;

	snprintf(topic, sizeof(topic), "$file/%s/init", fileid);
	int length = snprintf(meta, sizeof(meta), "{\"name\": \"%s\"}", name);
	publish(client, topic, meta, length);
	while ((bytes = fread(segment, 1, sizeof(segment), file)) > 0) {
		snprintf(topic, sizeof(topic), "$file/%s/%ld", fileid, offset);
		publish(client, topic, segment, (int)bytes);
		offset += (long)bytes;
		sent++;
	}
	wait_for(&acknowledged, sent);
	snprintf(topic, sizeof(topic), "$file/%s/fin/%ld", fileid, offset);
	publish(client, topic, "", 0);
	wait_for(&acknowledged, sent + 1);
}

int main(int argc, char **argv)
{
	if (argc != 7)
		fail("arguments", argc);
	version = atoi(argv[6]);
	MQTTAsync_createOptions options = MQTTAsync_createOptions_initializer;
	options.MQTTVersion = version;
	options.maxBufferedMessages = 10000;
	MQTTAsync client;
	int rc = MQTTAsync_createWithOptions(&client, argv[1], argv[2], MQTTCLIENT_PERSISTENCE_NONE, NULL,
		&options);
	if (rc != MQTTASYNC_SUCCESS)
		fail("create", rc);
	FILE *file = fopen(argv[4], "rb");
	if (!file)
		fail("fopen", 0);
	connect_to(client);
	upload(client, argv[3], file, argv[5]);
	fclose(file);
	MQTTAsync_disconnectOptions bye = MQTTAsync_disconnectOptions_initializer;
	MQTTAsync_disconnect(client, &bye);
	MQTTAsync_destroy(&client);
	return 0;
}
