import java.net.*;
import java.util.*;

/** Says where this computer's own name leads, and what interfaces it has: name, number, kind, addresses. */
public class Interfaces {
    public static void main(String[] words) throws Exception {
        System.out.println("own name: " + InetAddress.getLocalHost().isLoopbackAddress());
        for (NetworkInterface one : Collections.list(NetworkInterface.getNetworkInterfaces())) {
            List<String> addresses = new ArrayList<>();
            for (InetAddress address : Collections.list(one.getInetAddresses()))
                if (!address.isLinkLocalAddress()) addresses.add(address.getHostAddress().replaceAll("%.*", ""));
            Collections.sort(addresses);
            System.out.println(one.getName() + " " + one.getIndex() + " " + one.isUp() + " " + one.isLoopback() + " " + one.getMTU()
                + " " + addresses);
        }
    }
}
