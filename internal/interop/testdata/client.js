// An MQTT client made of MQTT.js; driver_test.go says what it does.
//
// usage: node client.js MODE URL VERSION CLIENT-ID QOS TOPIC [CA-FILE]
'use strict'

const fs = require('fs')
const readline = require('readline')
const mqtt = require('mqtt')

const [mode, url, versionText, clientId, qosText, topic, ca] = process.argv.slice(2)
const version = Number(versionText)
const qos = Number(qosText)

function options() {
  const keep = mode === 'leave' || mode === 'return'
  const o = { clientId, protocolVersion: version, clean: !keep, reconnectPeriod: 0 }
  if (version === 3) o.protocolId = 'MQIsdp'
  if (version === 5) o.properties = { sessionExpiryInterval: keep ? 300 : 0 }
  if (mode === 'will') o.will = { topic, payload: Buffer.from('gone'), qos }
  if (ca) o.ca = fs.readFileSync(ca)
  return o
}

function fail(err) {
  console.log('failed: ' + err.message)
  process.exit(1)
}

async function publish() {
  const sent = []
  for await (const line of readline.createInterface({ input: process.stdin })) {
    sent.push(client.publishAsync(topic, line, { qos, retain: mode === 'retain' }))
  }
  await Promise.all(sent)
  await client.endAsync()
}

async function subscribe() {
  const [granted] = await client.subscribeAsync(topic, { qos })
  console.log('ready')
  if (granted.qos !== qos) throw new Error('granted QoS ' + granted.qos)
  if (mode === 'leave') await client.endAsync()
}

const client = mqtt.connect(url, options())
client.on('error', fail)
client.on('message', (_, payload, packet) => {
  console.log('message', Number(packet.retain), packet.qos, payload.toString('hex'))
  if (payload.toString() === 'end') setImmediate(() => client.end()) // once it is acknowledged
})
client.on('connect', (connack) => {
  switch (mode) {
    case 'publish':
    case 'retain':
      publish().catch(fail)
      break
    case 'receive':
    case 'leave':
      subscribe().catch(fail)
      break
    case 'return':
      console.log('session', Number(connack.sessionPresent))
      break
    case 'will':
      console.log('ready')
  }
})
