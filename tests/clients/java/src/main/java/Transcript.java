import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.kafka.common.KafkaFuture;

/**
 * Writes down what calls answer, so that two brokers can be compared line by line.
 *
 * <p>A section is one method with the keys of the protocol's calls that it needs; a line is one call
 * and its answer, or the class and the message of its failure; further lines of an answer are
 * indented. What differs between runs, such as names, ids and ports, is replaced.
 */
final class Transcript {
    /** A call that takes longer than this is marked, whatever its answer. */
    private static final long SLOW_MS = 20_000;
    private static final Pattern UUID = Pattern.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}");

    /** A call whose answer is written down. */
    interface Call {
        Object answer() throws Exception;
    }

    private final String prefix;
    private final String port;

    /** Names that begin with {@code prefix} are this run's own. */
    Transcript(String prefix, String bootstrap) {
        this.prefix = prefix;
        this.port = bootstrap.substring(bootstrap.lastIndexOf(':') + 1);
    }

    /** The name of something of this run's. */
    String name(String suffix) {
        return prefix + "-" + suffix;
    }

    boolean isOurs(String name) {
        return name.startsWith(prefix);
    }

    void section(String method, Integer... keys) {
        String list = List.of(keys).stream().map(String::valueOf).collect(Collectors.joining(","));
        System.out.println("== " + method + " [" + list + "]");
    }

    void call(String what, Call call) {
        long start = System.nanoTime();
        String answer;
        try {
            answer = String.valueOf(call.answer());
        } catch (Exception failure) {
            Throwable cause = failure instanceof ExecutionException ? failure.getCause() : failure;
            answer = cause.getClass().getSimpleName() + ": " + cause.getMessage();
        }
        boolean slow = System.nanoTime() - start > TimeUnit.MILLISECONDS.toNanos(SLOW_MS);
        System.out.println(what + ": " + normalized(answer) + (slow ? " (slow)" : ""));
    }

    /** As {@link #call}, again and again until {@code expected} is the answer or time is up. */
    void await(String what, String expected, Call call) {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (System.nanoTime() < end) {
            try {
                if (normalized(String.valueOf(call.answer())).equals(expected)) {
                    break;
                }
                Thread.sleep(50);
            } catch (Exception failure) {
                break;
            }
        }
        call(what, call);
    }

    /** Sorted by key, one space after each comma. */
    static String sorted(Map<?, ?> map) {
        var entries = new TreeMap<String, String>();
        map.forEach((key, value) -> entries.put(String.valueOf(key), String.valueOf(value)));
        return entries.toString();
    }

    static String sorted(Collection<?> values) {
        return values.stream().map(String::valueOf).sorted().toList().toString();
    }

    static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(90, TimeUnit.SECONDS);
    }

    private String normalized(String text) {
        String ours = text.replace(prefix, "ours").replace(":" + port, ":PORT");
        return UUID.matcher(ours).replaceAll("UUID").replace("\n", "\n  ");
    }
}
