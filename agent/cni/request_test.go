package cni

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// added is a request that has everything.
func added() Request {
	return Request{
		Command:       Add,
		Attachment:    Attachment{ContainerID: "3a1f0c", Interface: "eth0"},
		Namespace:     "shop",
		Name:          "web-0",
		UID:           "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
		Addrs:         []netip.Addr{netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("fd00::7")},
		HostInterface: "veth1234",
		Subnets:       []Subnet{subnet("10.1.0.0/24", "10.1.0.1"), subnet("fd00::/64", "fd00::1")},
	}
}

func subnet(prefix, gateway string) Subnet {
	return Subnet{netip.MustParsePrefix(prefix), netip.MustParseAddr(gateway)}
}

// checked is added as CHECK says it.
func checked() Request {
	r := added()
	r.Command, r.Subnets = Check, nil
	return r
}

func removed() Request {
	return Request{Command: Del, Attachment: Attachment{ContainerID: "3a1f0c", Interface: "eth0"}}
}

func longest(r Request) Request {
	label := strings.Repeat("a", maxNamespace)
	r.ContainerID = strings.Repeat("f", maxContainerID)
	r.Interface, r.HostInterface = strings.Repeat("e", maxInterface), strings.Repeat("v", maxInterface)
	r.Namespace = label
	r.Name = strings.Join([]string{label, label, label, label[:61]}, ".")
	r.UID = strings.Repeat("0", maxUID)
	return r
}

// TestRequestGood passes what the kubelet may say.
func TestRequestGood(t *testing.T) {
	anonymous := added()
	anonymous.UID, anonymous.HostInterface, anonymous.Subnets = "", "", nil
	odd := added() // no matter of form
	odd.Subnets = []Subnet{subnet("0.0.0.0/0", "10.1.0.1"), subnet("10.1.0.7/32", "169.254.1.1"), subnet("fd00::/64", "fe80::1")}
	known := removed()
	known.Namespace, known.Name, known.UID = "shop", "web-0", "x"
	for name, r := range map[string]Request{
		"add": added(), "check": checked(), "no uid": anonymous, "odd subnets": odd, "longest": longest(added()),
		"del": removed(), "del with names": known, "status": {Command: Status}, "gc of nothing": {Command: GC},
		"gc": {Command: GC, Valid: []Attachment{{"a", "eth0"}, {"b_.-", "net1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			line, err := encode(r)
			require.NoError(t, err)
			got, err := decode(line)
			require.NoError(t, err)
			require.Equal(t, r, got)
		})
	}
	require.Len(t, longest(added()).Name, maxName)
}

// with returns the request after a change.
func with(r Request, change func(*Request)) Request {
	change(&r)
	return r
}

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// badRequests are wrong in one way each, and what the error says about it.
var badRequests = map[string]struct {
	request Request
	says    []string
}{
	"no command":      {Request{}, []string{"command", `""`}},
	"unknown command": {Request{Command: "version"}, []string{"command", `"version"`}},

	"no container":        {with(added(), func(r *Request) { r.ContainerID = "" }), []string{"containerID: empty"}},
	"container too long":  {with(longest(added()), func(r *Request) { r.ContainerID += "a" }), []string{"containerID: 256 bytes"}},
	"container path":      {with(removed(), func(r *Request) { r.ContainerID = "../x" }), []string{`containerID: "../x"`}},
	"container newline":   {with(removed(), func(r *Request) { r.ContainerID = "a\nb" }), []string{`containerID: "a\nb"`}},
	"no interface":        {with(added(), func(r *Request) { r.Interface = "" }), []string{"interface: empty"}},
	"interface too long":  {with(longest(added()), func(r *Request) { r.Interface += "a" }), []string{"interface: 16 bytes"}},
	"interface is dots":   {with(added(), func(r *Request) { r.Interface = ".." }), []string{`interface: ".."`}},
	"interface slash":     {with(added(), func(r *Request) { r.Interface = "a/b" }), []string{`interface: "a/b"`}},
	"interface space":     {with(added(), func(r *Request) { r.Interface = "a b" }), []string{`interface: "a b"`}},
	"interface quote":     {with(added(), func(r *Request) { r.Interface = `a"b` }), []string{`interface: "a\"b"`}},
	"host interface":      {with(added(), func(r *Request) { r.HostInterface = "veth\x01" }), []string{`hostInterface: "veth\x01"`}},
	"host interface long": {with(longest(added()), func(r *Request) { r.HostInterface += "v" }), []string{"hostInterface: 16 bytes"}},

	"no namespace":       {with(added(), func(r *Request) { r.Namespace = "" }), []string{"namespace: empty"}},
	"namespace too long": {with(longest(added()), func(r *Request) { r.Namespace += "a" }), []string{"namespace: 64 bytes"}},
	"namespace upper":    {with(added(), func(r *Request) { r.Namespace = "Shop" }), []string{`namespace: "Shop"`}},
	"namespace dot":      {with(added(), func(r *Request) { r.Namespace = "a.b" }), []string{`namespace: "a.b"`}},
	"namespace end":      {with(added(), func(r *Request) { r.Namespace = "a-" }), []string{`namespace: "a-"`}},
	"no name":            {with(added(), func(r *Request) { r.Name = "" }), []string{"name: empty"}},
	"name too long":      {with(longest(added()), func(r *Request) { r.Name += "a" }), []string{"name: 254 bytes"}},
	"name control":       {with(added(), func(r *Request) { r.Name = "a\x00b" }), []string{`name: "a\x00b"`}},
	"name escape":        {with(added(), func(r *Request) { r.Name = "a\x1b[2J" }), []string{`name: "a\x1b[2J"`}},
	"name unicode":       {with(added(), func(r *Request) { r.Name = "käse" }), []string{`name: "käse"`}},
	"name empty part":    {with(added(), func(r *Request) { r.Name = "a..b" }), []string{`name: "a..b"`}},
	"name slash":         {with(removed(), func(r *Request) { r.Name = "a/b" }), []string{`name: "a/b"`}},
	"uid too long":       {with(longest(added()), func(r *Request) { r.UID += "0" }), []string{"uid: 129 bytes"}},
	"uid space":          {with(removed(), func(r *Request) { r.UID = "a b" }), []string{`uid: "a b"`}},

	"no address":          {with(added(), func(r *Request) { r.Addrs = nil }), []string{"addrs: none"}},
	"empty address":       {with(added(), func(r *Request) { r.Addrs = []netip.Addr{{}} }), []string{"addrs: an empty address"}},
	"address twice":       {with(added(), func(r *Request) { r.Addrs = addrs("10.1.0.7", "10.1.0.7") }), []string{"addrs: 10.1.0.7 twice"}},
	"unspecified":         {with(added(), func(r *Request) { r.Addrs = addrs("0.0.0.0") }), []string{"addrs: 0.0.0.0"}},
	"unspecified v6":      {with(added(), func(r *Request) { r.Addrs = addrs("::") }), []string{"addrs: ::"}},
	"loopback":            {with(added(), func(r *Request) { r.Addrs = addrs("127.0.0.1") }), []string{"addrs: 127.0.0.1"}},
	"multicast":           {with(added(), func(r *Request) { r.Addrs = addrs("ff02::1") }), []string{"addrs: ff02::1"}},
	"broadcast":           {with(added(), func(r *Request) { r.Addrs = addrs("255.255.255.255") }), []string{"addrs: 255.255.255.255"}},
	"mapped":              {with(added(), func(r *Request) { r.Addrs = addrs("::ffff:10.1.0.7") }), []string{"addrs: ::ffff:10.1.0.7", "IPv6 form"}},
	"zone":                {with(added(), func(r *Request) { r.Addrs = addrs("fe80::1%eth0") }), []string{"addrs: fe80::1%eth0", "zone"}},
	"too many addresses":  {with(added(), func(r *Request) { r.Addrs = make([]netip.Addr, 65) }), []string{"addrs: 65 addresses"}},
	"subnet twice":        {with(added(), func(r *Request) { r.Subnets = append(r.Subnets, r.Subnets[0]) }), []string{"subnets: 10.1.0.0/24 by way of 10.1.0.1 twice"}},
	"empty subnet":        {with(added(), func(r *Request) { r.Subnets = []Subnet{{Gateway: netip.MustParseAddr("10.1.0.1")}} }), []string{"subnets: an empty prefix"}},
	"not masked":          {with(added(), func(r *Request) { r.Subnets = []Subnet{subnet("10.1.0.7/24", "10.1.0.1")} }), []string{"subnets: 10.1.0.7/24"}},
	"mapped subnet":       {with(added(), func(r *Request) { r.Subnets = []Subnet{subnet("::ffff:10.1.0.0/120", "10.1.0.1")} }), []string{"subnets: ::ffff:10.1.0.0/120"}},
	"no gateway":          {with(added(), func(r *Request) { r.Subnets[0].Gateway = netip.Addr{} }), []string{"subnets: gateway of 10.1.0.0/24: an empty address"}},
	"other gateway":       {with(added(), func(r *Request) { r.Subnets[0].Gateway = netip.MustParseAddr("fd00::1") }), []string{"subnets: gateway of 10.1.0.0/24: fd00::1"}},
	"too many subnets":    {with(added(), func(r *Request) { r.Subnets = make([]Subnet, 65) }), []string{"subnets: 65 subnets"}},
	"subnets for check":   {with(checked(), func(r *Request) { r.Subnets = added().Subnets }), []string{"subnets: not for command check"}},
	"subnets for del":     {with(removed(), func(r *Request) { r.Subnets = added().Subnets }), []string{"subnets: not for command del"}},
	"subnets for gc":      {Request{Command: GC, Subnets: added().Subnets}, []string{"pod: not for command gc"}},
	"attachments for add": {with(added(), func(r *Request) { r.Valid = []Attachment{{"a", "eth0"}} }), []string{"valid: not for command add"}},
	"addresses for del":   {with(removed(), func(r *Request) { r.Addrs = addrs("10.1.0.7") }), []string{"addrs: not for command del"}},
	"host for del":        {with(removed(), func(r *Request) { r.HostInterface = "v" }), []string{"hostInterface: not for command del"}},
	"attachments for del": {with(removed(), func(r *Request) { r.Valid = []Attachment{{"a", "eth0"}} }), []string{"valid: not for command del"}},
	"pod for gc":          {Request{Command: GC, Name: "web-0"}, []string{"pod: not for command gc"}},
	"attachments":         {Request{Command: Status, Valid: []Attachment{{"a", "eth0"}}}, []string{"valid: not for command status"}},
	"bad attachment":      {Request{Command: GC, Valid: []Attachment{{"a", "eth0"}, {"", "e\t"}}}, []string{"valid[1].containerID: empty", `valid[1].interface: "e\t"`}},
}

// TestRequestBad says what is wrong with each, by the name of its field.
func TestRequestBad(t *testing.T) {
	for name, c := range badRequests {
		t.Run(name, func(t *testing.T) {
			err := c.request.Validate()
			for _, text := range c.says {
				require.ErrorContains(t, err, text)
			}
		})
	}
}

// TestRequestErrorsJoined reports all mistakes at once.
func TestRequestErrorsJoined(t *testing.T) {
	err := Request{Command: Add}.Validate()
	for _, field := range []string{"containerID", "interface", "namespace", "name", "addrs"} {
		require.ErrorContains(t, err, field+": ")
	}
}

// FuzzDecode decodes what anybody may write to the socket. What is let through is
// valid, and says the same after another journey.
func FuzzDecode(f *testing.F) {
	for _, r := range []Request{added(), removed(), longest(added()), {Command: Status}, {Command: GC, Valid: []Attachment{{"a", "eth0"}}}} {
		line, err := encode(r)
		require.NoError(f, err)
		f.Add(line)
	}
	f.Add([]byte(`{"protocol":1,"command":"add","addrs":[""],"Namespace":null,"namespace":"a"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decode(line)
		if err != nil {
			return
		}
		require.NoError(t, r.Validate())
		for _, text := range []string{r.ContainerID, r.Interface, r.Namespace, r.Name, r.UID, r.HostInterface} {
			require.NotRegexp(t, `[^!-~]`, text)
		}
		first, err := encode(r)
		require.NoError(t, err)
		again, err := decode(first)
		require.NoError(t, err)
		second, err := encode(again)
		require.NoError(t, err)
		require.Equal(t, string(first), string(second))
	})
}
