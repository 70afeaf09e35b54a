import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's command line tools one after another in one virtual machine: starting one for each
 * would take most of the time of a test.
 *
 * <p>A request on standard input is a count of strings and the strings, each behind its length: the
 * main class, what the tool finds on its standard input, its arguments. The answer on standard
 * output is the exit code, then standard output and standard error, each behind its length. All
 * numbers are 32 bits, big-endian. The end of the input ends the program.
 */
public final class ToolHost {
    /** Thrown where a tool would end its virtual machine. */
    private static final class Ended extends Error {
        private static final long serialVersionUID = 1L;

        Ended() {
            super("exit", null, false, false);
        }
    }

    private final Object lock = new Object();
    private final List<Runnable> hooks = new ArrayList<>();
    private Integer exitCode;

    public static void main(String[] arguments) throws IOException {
        new ToolHost().serve(new DataInputStream(System.in), new DataOutputStream(System.out));
    }

    private void serve(DataInputStream requests, DataOutputStream answers) throws IOException {
        Exit.setExitProcedure((code, message) -> end(code));
        Exit.setHaltProcedure((code, message) -> end(code));
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        while (true) {
            List<String> words = new ArrayList<>();
            try {
                for (int left = requests.readInt(); left > 0; left--) {
                    byte[] word = requests.readNBytes(requests.readInt());
                    words.add(new String(word, StandardCharsets.UTF_8));
                }
            } catch (EOFException noMore) {
                return;
            }
            answer(words, answers);
        }
    }

    private void answer(List<String> words, DataOutputStream answers) throws IOException {
        var out = new ByteArrayOutputStream();
        var err = new ByteArrayOutputStream();
        System.setOut(new PrintStream(out, true));
        System.setErr(new PrintStream(err, true));
        InputStream input = new ByteArrayInputStream(words.get(1).getBytes(StandardCharsets.UTF_8));
        System.setIn(input);
        int code = run(words.get(0), words.subList(2, words.size()).toArray(String[]::new));
        answers.writeInt(code);
        for (ByteArrayOutputStream said : List.of(out, err)) {
            answers.writeInt(said.size());
            said.writeTo(answers);
        }
        answers.flush();
    }

    private int run(String main, String[] arguments) {
        synchronized (lock) {
            exitCode = null;
        }
        int code = 0;
        try {
            Class.forName(main).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } catch (InvocationTargetException failure) {
            if (!(failure.getCause() instanceof Ended)) {
                failure.getCause().printStackTrace();
                code = 1;
            }
        } catch (ReflectiveOperationException failure) {
            throw new IllegalArgumentException(main, failure);
        }
        hooks.forEach(Runnable::run);
        hooks.clear();
        synchronized (lock) {
            return exitCode == null ? code : exitCode;
        }
    }

    /** The first exit counts: a tool may take what is thrown here for a failure of its own. */
    private void end(int code) {
        synchronized (lock) {
            if (exitCode == null) {
                exitCode = code;
            }
        }
        throw new Ended();
    }
}
