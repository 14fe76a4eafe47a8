# asyncio, as server and as client: a plain greeting, then start_tls, then as much as was asked for, sent back reversed.
import asyncio, ssl, sys

async def answer(reader, writer):
    assert await reader.readline() == b'STARTTLS\n'
    writer.write(b'go ahead\n')
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    await writer.start_tls(context)
    data = await reader.readexactly(int(await reader.readline()))
    writer.write(data[::-1])
    await writer.drain()
    writer.close()

async def serve():
    server = await asyncio.start_server(answer, port=7000)
    print('listening', flush=True)
    async with server:
        await server.serve_forever()

async def ask(name, certificate, data):
    reader, writer = await asyncio.open_connection(name, 7000, limit=1 << 24)
    writer.write(b'STARTTLS\n')
    assert await reader.readline() == b'go ahead\n'
    await writer.start_tls(ssl.create_default_context(cafile=certificate), server_hostname='over.there')
    writer.write(b'%d\n%s' % (len(data), data))
    await writer.drain()
    assert await reader.readexactly(len(data)) == data[::-1]
    assert not await reader.read()
    writer.close()

async def all_at_once():
    data = open(sys.argv[4], 'rb').read()
    await asyncio.gather(*(ask(sys.argv[2], sys.argv[3], data[number:]) for number in range(4)))
    print('all well')

asyncio.run(serve() if sys.argv[1] == 'server' else all_at_once())
