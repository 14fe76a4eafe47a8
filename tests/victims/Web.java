// Java: com.sun.net.httpserver and a selector that serves all its clients in one thread; HttpClient and channels as clients.
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.*;
import java.net.http.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;

public class Web {
    static byte[] reversed(byte[] data) {
        byte[] other = new byte[data.length];
        for (int i = 0; i < data.length; i++) other[i] = data[data.length - 1 - i];
        return other;
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    // Takes until the client is done, then sends all of it back reversed.
    static void select(ServerSocketChannel server) throws IOException {
        Selector selector = Selector.open();
        server.configureBlocking(false);
        server.register(selector, SelectionKey.OP_ACCEPT);
        ByteBuffer buffer = ByteBuffer.allocate(65536);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel client = server.accept();
                    client.configureBlocking(false);
                    client.register(selector, SelectionKey.OP_READ, new ByteArrayOutputStream());
                } else if (key.isReadable()) {
                    buffer.clear();
                    ByteArrayOutputStream got = (ByteArrayOutputStream) key.attachment();
                    if (((SocketChannel) key.channel()).read(buffer) >= 0) {
                        got.write(buffer.array(), 0, buffer.position());
                    } else {
                        key.attach(ByteBuffer.wrap(reversed(got.toByteArray())));
                        key.interestOps(SelectionKey.OP_WRITE);
                    }
                } else {
                    ByteBuffer rest = (ByteBuffer) key.attachment();
                    ((SocketChannel) key.channel()).write(rest);
                    if (!rest.hasRemaining()) key.channel().close();
                }
            }
            selector.selectedKeys().clear();
        }
    }

    static void serve(byte[] file) throws IOException {
        HttpServer web = HttpServer.create(new InetSocketAddress(80), 16);
        web.createContext("/file", exchange -> {
            exchange.sendResponseHeaders(200, file.length);
            exchange.getResponseBody().write(file);
            exchange.close();
        });
        web.start();
        ServerSocketChannel server = ServerSocketChannel.open();
        server.bind(new InetSocketAddress(7000));
        System.out.println("listening");
        select(server);
    }

    static void ask(byte[] file, String name) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://" + name + "/file")).build();
        List<java.util.concurrent.CompletableFuture<HttpResponse<byte[]>>> several = new ArrayList<>();
        for (int i = 0; i < 3; i++) several.add(client.sendAsync(request, HttpResponse.BodyHandlers.ofByteArray()));
        for (var one : several) check(Arrays.equals(one.get().body(), file), "another file");
        boolean four = Boolean.getBoolean("java.net.preferIPv4Stack");
        InetAddress address = InetAddress.getByName(name);
        check(four ? address instanceof Inet4Address : true, "family of " + address);
        try (Socket socket = new Socket(address, 7000)) {
            Thread writer = new Thread(() -> {
                try {
                    socket.getOutputStream().write(file);
                    socket.shutdownOutput();
                } catch (IOException error) {
                    throw new RuntimeException(error);
                }
            });
            writer.start();
            check(Arrays.equals(socket.getInputStream().readAllBytes(), reversed(file)), "another answer");
            writer.join();
        }
        try (SocketChannel channel = SocketChannel.open(new InetSocketAddress(address, 7001))) {
            check(false, "connected to " + channel);
        } catch (ConnectException refused) {
            System.out.println("all well");
        }
    }

    public static void main(String[] words) throws Exception {
        byte[] file = Files.readAllBytes(Path.of(words[1]));
        if (words[0].equals("server")) serve(file);
        else ask(file, words[2]);
    }
}
