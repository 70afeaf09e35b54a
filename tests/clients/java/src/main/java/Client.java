import java.util.Arrays;

/** The Java client's scenes: exchange, member, describe, delete; see the class of each. */
public final class Client {
    public static void main(String[] arguments) throws Exception {
        String[] words = Arrays.copyOfRange(arguments, 1, arguments.length);
        switch (arguments[0]) {
            case "exchange" -> Exchange.run(words[0]);
            case "member" -> Member.run(words[0], words[1], words[2], words[3]);
            case "describe" -> GroupAdministration.describe(words[0], words[1], words[2]);
            case "delete" -> GroupAdministration.delete(words[0], words[1], words[2]);
            default -> throw new IllegalArgumentException("no scene " + arguments[0]);
        }
    }
}
