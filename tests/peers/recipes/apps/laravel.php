<?php
// A Laravel application without its skeleton, which is not in Debian. The routes are in the group `web`,
// as in routes/web.php.

use Illuminate\Contracts\Http\Kernel as HttpKernel;
use Illuminate\Foundation\Application;
use Illuminate\Support\Facades\Facade;
use Illuminate\Support\Facades\Route;

require '/usr/share/php/Illuminate/autoload.php';
require __DIR__ . '/app/Http/Controllers/NangoCallbackController.php';

class Kernel extends Illuminate\Foundation\Http\Kernel
{
    protected $bootstrappers = [Illuminate\Foundation\Bootstrap\BootProviders::class];
    protected $middlewareGroups = ['web' => [
        Illuminate\Cookie\Middleware\EncryptCookies::class,
        Illuminate\Cookie\Middleware\AddQueuedCookiesToResponse::class,
        Illuminate\Session\Middleware\StartSession::class,
        Illuminate\Foundation\Http\Middleware\VerifyCsrfToken::class,
    ]];
}

$app = new Application(__DIR__);
$app->singleton(HttpKernel::class, Kernel::class);
$app->singleton(Illuminate\Contracts\Debug\ExceptionHandler::class, Illuminate\Foundation\Exceptions\Handler::class);
Facade::setFacadeApplication($app);
$app->instance('config', new Illuminate\Config\Repository([
    'app' => ['key' => str_repeat('x', 32), 'cipher' => 'AES-256-CBC', 'env' => 'production', 'debug' => false],
    'session' => [
        'driver' => 'array', 'lottery' => [0, 1], 'cookie' => 'session', 'path' => '/', 'domain' => null,
        'lifetime' => 5, 'expire_on_close' => true,
    ],
    'view' => ['paths' => [], 'compiled' => __DIR__],
    'logging' => ['default' => 'null', 'channels' => ['null' => ['driver' => 'monolog', 'handler' => Monolog\Handler\NullHandler::class]]],
]));
foreach ([
    Illuminate\Encryption\EncryptionServiceProvider::class,
    Illuminate\Cookie\CookieServiceProvider::class,
    Illuminate\Session\SessionServiceProvider::class,
    Illuminate\View\ViewServiceProvider::class,
    Illuminate\Filesystem\FilesystemServiceProvider::class,
] as $provider) {
    $app->register($provider);
}
$app->booted(fn () => Route::middleware('web')->group(__DIR__ . '/routes/nango_callback.php'));
$kernel = $app->make(HttpKernel::class);
$request = Illuminate\Http\Request::capture();
$response = $kernel->handle($request);
$response->send();
$kernel->terminate($request, $response);
