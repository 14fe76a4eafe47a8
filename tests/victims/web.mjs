// Node.js: an http server, and a client with fetch, net, dns.lookup and dns.resolve.
import dns from 'node:dns/promises';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import assert from 'node:assert';

const [role, path, name, packets] = process.argv.slice(2);
const expected = fs.readFileSync(path);
const collect = stream => new Promise((resolve, reject) => {
    const parts = [];
    stream.on('data', part => parts.push(part)).on('end', () => resolve(Buffer.concat(parts))).on('error', reject);
});

if (role === 'server') {
    const web = http.createServer(async (request, response) => {
        if (request.url === '/file') return fs.createReadStream(path).pipe(response);
        response.end((await collect(request)).reverse());
    });
    // Node gives a connection up that takes over 250 ms and tries the name's next address: what has come of it is reset.
    const raw = net.createServer({ allowHalfOpen: true }, socket => collect(socket).then(got => socket.end(got.reverse()), () => socket.destroy()));
    web.listen(80, () => raw.listen(7000, () => console.log('listening')));
} else {
    const get = async url => Buffer.from(await (await fetch(url)).arrayBuffer());
    const several = await Promise.all([1, 2, 3].map(() => get(`http://${name}/file`)));
    several.forEach(got => assert(got.equals(expected)));
    const posted = await fetch(`http://${name}/reverse`, { method: 'POST', body: expected });
    const reversed = Buffer.from(expected).reverse();
    assert(Buffer.from(await posted.arrayBuffer()).equals(reversed));

    const looked = await dns.lookup(name, { all: true });
    const six = looked.find(found => found.family === 6).address;
    const four = looked.find(found => found.family === 4)?.address ?? (await dns.lookup(name, { family: 4 })).address;
    // c-ares sends packets of its own, which need a network that has any.
    if (packets === 'packets') {
        assert.deepEqual(await dns.resolve6(name), [six]);
        assert.deepEqual(await dns.resolve4(name), [four]);
    }
    for (const host of [name, six, four]) {
        const socket = net.connect({ host, port: 7000, allowHalfOpen: true });
        socket.end(expected);
        assert((await collect(socket)).equals(reversed), host);
    }
    const refused = await new Promise(resolve => net.connect(7001, name).on('error', error => resolve(error.code)));
    assert(['ECONNREFUSED', undefined].includes(refused), refused);
    console.log('all well');
    process.exit(0);
}
