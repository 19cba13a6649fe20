package packet

// place is where a property or a reason code stands, as a set of bits: which may
// stand where is table 2-4 and table 2-6 of MQTT 5.0. What a server may send in
// PUBLISH, DISCONNECT and AUTH differs from what a client may.
type place uint32

const (
	inWill        place = 1 << 0
	inConnect     place = 1 << TypeConnect
	inConnack     place = 1 << TypeConnack
	inPublish     place = 1 << TypePublish // of a client, like the next two
	inDisconnect  place = 1 << TypeDisconnect
	inAuth        place = 1 << TypeAuth
	inPuback      place = 1 << TypePuback
	inPubrec      place = 1 << TypePubrec
	inPubrel      place = 1 << TypePubrel
	inPubcomp     place = 1 << TypePubcomp
	inSubscribe   place = 1 << TypeSubscribe
	inSuback      place = 1 << TypeSuback
	inUnsubscribe place = 1 << TypeUnsubscribe
	inUnsuback    place = 1 << TypeUnsuback

	byServer = 16 // bits from the place of a client to that of a server

	inServerPublish    = inPublish << byServer
	inServerDisconnect = inDisconnect << byServer
	inServerAuth       = inAuth << byServer

	inAcks = inPuback | inPubrec | inPubrel | inPubcomp | inSuback | inUnsuback
)

// place is that of the packet being read.
func (r *fields) place() place {
	p := place(1) << r.packet
	if r.fromServer && p&(inPublish|inDisconnect|inAuth) != 0 {
		p <<= byServer
	}
	return p
}
