import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Runs the jobs of {@code benches/src/jobs.rs} with Kafka Streams, at least once, on its defaults.
 *
 * <p>Arguments: bootstrap servers, a directory for state, settings as {@code key=value}. Then, on
 * standard input, one line: {@code start APPLICATION JOB SOURCE SINK}; it says {@code started} once
 * it has its partitions, and ends with its input.
 */
public final class Pipelines {
    private static final byte[] MARK = "seen:".getBytes(StandardCharsets.US_ASCII);
    private static final int LEVEL_CM_MIN = 450;
    private static final JsonFactory JSON = new JsonFactory();
    private static final byte[] NOT_KEPT = new byte[0];

    private Pipelines() {}

    public static void main(String[] arguments) throws IOException {
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line = input.readLine();
        String[] words = line == null ? new String[0] : line.split(" ");
        if (words.length != 5 || !words[0].equals("start")) {
            throw new IllegalArgumentException("no start of a job: " + line);
        }
        var builder = new StreamsBuilder();
        var bytes = Serdes.ByteArray();
        KStream<byte[], byte[]> source = builder.stream(words[3], Consumed.with(bytes, bytes));
        job(words[2], source).to(words[4], Produced.with(bytes, bytes));

        var settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[1]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, words[1]);
        for (int at = 2; at < arguments.length; at++) {
            String[] setting = arguments[at].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        try (var streams = new KafkaStreams(builder.build(), settings)) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                return StreamsUncaughtExceptionHandler
                        .StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
            streams.setStateListener((now, before) -> {
                if (now == KafkaStreams.State.RUNNING) {
                    System.out.println("started");
                }
            });
            streams.start();
            while (input.readLine() != null) {
                // Only the end of the input counts.
            }
        }
    }

    private static KStream<byte[], byte[]> job(String name, KStream<byte[], byte[]> source) {
        return switch (name) {
            case "mark" -> source.mapValues(Pipelines::mark);
            case "filter-mark" -> source
                    .filter((key, value) -> key[key.length - 1] % 2 == 0)
                    .mapValues(Pipelines::mark);
            case "pick" -> source
                    .mapValues(Pipelines::stationOfHigh)
                    .filter((key, station) -> station != NOT_KEPT);
            case "split" -> source.flatMapValues(Pipelines::words);
            default -> throw new IllegalArgumentException("no job is called " + name);
        };
    }

    private static byte[] mark(byte[] value) {
        byte[] marked = Arrays.copyOf(MARK, MARK.length + value.length);
        System.arraycopy(value, 0, marked, MARK.length, value.length);
        return marked;
    }

    /**
     * The station of a document whose level is high. A streaming parser goes over the whole
     * document once: a tree for each of them would cost more.
     */
    private static byte[] stationOfHigh(byte[] document) {
        String station = null;
        long level = Long.MIN_VALUE;
        try (JsonParser parser = JSON.createParser(document)) {
            int depth = 0;
            for (JsonToken token; (token = parser.nextToken()) != null; ) {
                if (token.isStructStart()) {
                    depth++;
                } else if (token.isStructEnd()) {
                    depth--;
                } else if (depth == 1 && token == JsonToken.FIELD_NAME) {
                    String field = parser.currentName();
                    if (field.equals("station")) {
                        station = parser.nextTextValue();
                    } else if (field.equals("level_cm")) {
                        level = parser.nextLongValue(level);
                    }
                }
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        boolean isKept = station != null && level >= LEVEL_CM_MIN;
        return isKept ? station.getBytes(StandardCharsets.UTF_8) : NOT_KEPT;
    }

    private static List<byte[]> words(byte[] text) {
        List<byte[]> words = new ArrayList<>();
        int begin = 0;
        for (int at = 0; at <= text.length; at++) {
            if (at == text.length || text[at] == ' ') {
                words.add(Arrays.copyOfRange(text, begin, at));
                begin = at + 1;
            }
        }
        return words;
    }
}
