# Downloads and uploads with requests and with urllib, over one session and with IPv4 alone.
import sys, socket, urllib.request, requests
name, path = sys.argv[1:]
expected = open(path, 'rb').read()
with requests.Session() as session:
    for _ in range(3):
        assert session.get(f'http://{name}/file', timeout=80).content == expected
    assert session.post(f'http://{name}/reverse', data=expected, timeout=80).content == expected[::-1]
with urllib.request.urlopen(f'http://{name}/file', timeout=80) as answer:
    assert answer.read() == expected
four = socket.gethostbyname(name)
assert requests.get(f'http://{four}/file', headers={'Host': name}, timeout=80).content == expected
try:
    requests.get(f'http://{name}:81/', timeout=80)
    raise AssertionError('connected')
except requests.ConnectionError as error:
    assert 'refused' in str(error), error
print('all well')
